"""Run the race: ``python -m benchmarks.peers [--race NAME] [--out results/peers]``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Set before any competitor is imported: one machine, no accelerator, quiet logs.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console

from benchmarks.peers import ours, with_others, with_tensorflow, with_torch  # noqa: F401
from benchmarks.peers.picture import draw
from benchmarks.peers.race import RACES, Competitor, Inputs, Race, Step, make_inputs
from benchmarks.written import write_json
from softmax_bench.measure import interleave

HIDDEN_SIZE = 256


def main() -> None:
    """Run one race here, or all of them, each in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--race",
        choices=list(RACES),
        metavar="NAME",
        help=f"all by default; there are {'; '.join(RACES)}",
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="budget of one meeting")
    parser.add_argument("--out", type=Path, default=Path("results/peers"))
    options = parser.parse_args()
    console = Console()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.race:
        _run(RACES[options.race], options.seconds, options.out, console)
    else:
        for race in RACES:
            # Some competitors cannot share a process.
            command = [sys.executable, "-m", "benchmarks.peers", "--race", race]
            command += ["--seconds", str(options.seconds), "--out", str(options.out)]
            subprocess.run(command, check=True)
    draw(options.out)
    console.print(f"Table and picture: {options.out / 'table.md'}, {options.out / 'race.png'}")


def _run(race: Race, seconds: float, out: Path, console: Console) -> None:
    for one in race.competitors:
        if one.missing():
            console.print(f"{one.name} is left out: {one.needs} is not installed")
    rows = [row for size in race.sizes for row in _meet(race, size, seconds, console)]
    name = race.name.replace(",", "").replace(" ", "-")
    write_json(out / f"{name}.json", hidden_size=HIDDEN_SIZE, rows=rows)


def _meet(
    race: Race, size: tuple[int, int, int | None], seconds: float, console: Console
) -> list[dict[str, Any]]:
    """Time all competitors of a race at one size in alternation."""
    tokens, vocabulary, samples = size
    inputs = make_inputs(tokens, HIDDEN_SIZE, vocabulary, samples)
    runners = {
        one.name: one.build(inputs)
        for one in race.competitors
        if not one.missing() and _affordable(one, inputs)
    }
    losses = {name: run() for name, run in runners.items()}
    known = [loss for loss in losses.values() if loss is not None]
    if known and max(known) - min(known) > 1e-3 * abs(known[0]):
        raise RuntimeError(f"losses that should agree differ: {losses}")
    timed = interleave(
        {name: _timed(run) for name, run in runners.items()},
        budget_seconds=seconds,
        min_repetitions=3,
        max_repetitions=60,
    )
    best = timed["softmax-bench"]["step"].median
    rows = []
    for name, phases in timed.items():
        step = phases["step"]
        rows.append(
            {"race": race.name, "N": tokens, "V": vocabulary, "S": samples, "competitor": name,
             "ms": step.median * 1e3, "low": step.low * 1e3, "high": step.high * 1e3,
             "repetitions": step.repetitions, "ratio": step.median / best}
        )  # fmt: skip
        console.print(
            f"{race.name}  N={tokens} V={vocabulary:,} S={samples}  {name}: "
            f"{step.median * 1e3:.2f} ms, {step.median / best:.2f} x ours",
            highlight=False,
            soft_wrap=True,
        )
    return rows


def _affordable(one: Competitor, inputs: Inputs) -> bool:
    full = 6.0 * inputs.num_tokens * inputs.vocab_size * inputs.hidden_size
    return full <= one.max_flops


def _timed(run: Step) -> Any:
    def once() -> dict[str, float]:
        begin = time.perf_counter()
        run()
        return {"step": time.perf_counter() - begin}

    return once


if __name__ == "__main__":
    main()
