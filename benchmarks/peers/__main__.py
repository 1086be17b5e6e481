"""Run the race: ``python -m benchmarks.peers [--race NAME] [--out results/peers]``."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

# Before any of the competitors looks: one machine, no accelerator, quiet logs.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch
from rich.console import Console

from benchmarks.peers import ours, with_others, with_tensorflow, with_torch  # noqa: F401
from benchmarks.peers.picture import draw
from benchmarks.peers.race import RACES, Competitor, Inputs, Race, Step, make_inputs
from softmax_bench.measure import Interval, describe_environment, interleave

HIDDEN_SIZE = 256


def main() -> None:
    """Read the options, run the races, write their table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--race", action="append", choices=list(RACES), help="all by default")
    parser.add_argument("--seconds", type=float, default=8.0, help="budget of one meeting")
    parser.add_argument("--out", type=Path, default=Path("results/peers"))
    options = parser.parse_args()
    console = Console()
    for name in sorted({c.needs for r in RACES.values() for c in r.competitors if c.missing()}):  # type: ignore[type-var]
        console.print(f"{name} is not installed: its races are run without it")
    rows: list[dict[str, Any]] = []
    for name in options.race or RACES:
        for size in RACES[name].sizes:
            rows += _meet(RACES[name], size, options.seconds, console)
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"environment": describe_environment(), "threads": torch.get_num_threads(),
              "hidden_size": HIDDEN_SIZE, "rows": rows}  # fmt: skip
    (options.out / "race.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.out / "table.md").write_text(_markdown(rows))
    draw(options.out)
    console.print(f"Table and picture: {options.out / 'table.md'}, {options.out / 'race.png'}")


def _meet(
    race: Race, size: tuple[int, int, int | None], seconds: float, console: Console
) -> list[dict[str, Any]]:
    """All competitors of a race at one size, taking turns."""
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
        raise RuntimeError(f"losses that should agree do not: {losses}")
    timed = interleave(
        {name: _timed(run) for name, run in runners.items()},
        budget_seconds=seconds,
        max_repetitions=60,
    )
    best = timed["softmax-bench"]["step"].median
    rows = []
    for name, phases in timed.items():
        step: Interval = phases["step"]
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


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| race | N | V | S | competitor | ms | interval | time / ours |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in rows:
        lines.append(
            f"| {row['race']} | {row['N']} | {row['V']:,} | {row['S'] or ''} | {row['competitor']} "
            f"| {row['ms']:.2f} | {row['low']:.2f} ... {row['high']:.2f} | {row['ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
