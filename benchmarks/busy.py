"""How busy processes affect step times: ``python -m benchmarks.busy``.

``softmax-bench time`` runs on a quiet machine, beside one and two busy loops, and beside two loops
that start while it is timing. In the last column, threads spin at barriers whatever the machine
does, as OpenMP lets them by default. Then ``softmax-bench advise`` gives its first advice on all
layers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.written import write_results
from softmax_bench.advise.calibration import SIZES, Calibration
from softmax_bench.records.record import SpeedRecord
from softmax_bench.records.store import read_store

MOST = 2.5
"""Upper bound for the step time beside busy processes, relative to the quiet machine."""
SPINS = {"GOMP_SPINCOUNT": "300000"}
"""OpenMP's default."""


@dataclass(frozen=True)
class Condition:
    """A load under which layers are timed."""

    name: str
    loops: int = 0
    after: float = 0.0
    """Seconds after which the loops start."""
    spins: bool = False


CONDITIONS = (
    Condition("quiet"),
    Condition("one busy loop", loops=1),
    Condition("two", loops=2),
    Condition("two that begin meanwhile", loops=2, after=8.0),
    Condition("two, threads spin", loops=2, spins=True),
)


@contextmanager
def busy_loops(number: int, after: float) -> Iterator[None]:
    """Processes that run an empty loop."""
    running: list[subprocess.Popen[bytes]] = []

    def begin() -> None:
        running.extend(
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)
        )

    timer = threading.Timer(after, begin)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for process in running:
            process.kill()
            process.wait()


def run_under(condition: Condition, command: list[str]) -> float:
    """Run a command of ``softmax-bench``, and return its seconds."""
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    if condition.spins:
        environment |= SPINS
    with busy_loops(condition.loops, condition.after):
        begin = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "softmax_bench.cli", *command],
            check=True, env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return time.monotonic() - begin


def time_under(condition: Condition, arguments: list[str]) -> list[SpeedRecord]:
    """The records of ``softmax-bench time``."""
    with tempfile.TemporaryDirectory() as folder:
        run_under(condition, ["time", *arguments, "--out", folder])
        records = read_store(Path(folder)).records.values()
    return [record for record in records if isinstance(record, SpeedRecord)]


def first_advice(condition: Condition) -> tuple[float, int]:
    """Seconds of an uncalibrated ``softmax-bench advise``, and how many sizes it timed."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["advise", "--vocab", "50000", "--calibrations", folder]
        seconds = run_under(condition, command)
        (file,) = Path(folder).glob("*.json")
        known = msgspec.json.decode(file.read_bytes(), type=Calibration)
    return seconds, len({cell.workload.size for cell in known.cells})


def steps(records: list[SpeedRecord]) -> dict[str, float]:
    """Seconds of a step by layer."""
    return {record.trial.layer: record.result.phases["step"].median for record in records}


def markdown(records_by_condition: dict[str, list[SpeedRecord]]) -> str:
    """One row per layer, and what the records say about the machine."""
    quiet = steps(records_by_condition["quiet"])
    busy = [name for name in records_by_condition if name != "quiet"]
    lines = [f"| layer | quiet, ms | {' | '.join(busy)} |", "| --- " * (len(busy) + 2) + "|"]
    times = {name: steps(records_by_condition[name]) for name in busy}
    for layer, seconds in quiet.items():
        ratios = " | ".join(f"{times[name][layer] / seconds:.2f} x" for name in busy)
        lines.append(f"| `{layer}` | {1e3 * seconds:.3g} | {ratios} |")
    lines.append("")
    for name, records in records_by_condition.items():
        disturbance = records[0].result.disturbance
        passive = records[0].environment.variables.get("OMP_WAIT_POLICY") == "passive"
        waits = "passively" if passive else "spinning"
        marked = (
            "; ".join(disturbance.reasons)
            if disturbance is not None and disturbance.reasons
            else "not marked"
        )
        lines.append(f"* {name}: threads waited {waits}; {marked}")
    worst = max(
        times[condition.name][layer] / seconds
        for condition in CONDITIONS
        if condition.name in times and not condition.spins
        for layer, seconds in quiet.items()
    )
    lines += ["", f"At most {worst:.2f} times a quiet machine's step; the bound is {MOST}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__)
    parser.add_argument("--layers", default="full,hierarchical,nce,adaptive,sampled")
    parser.add_argument("--vocab-size", default="10000")
    parser.add_argument("--time-budget", default="15", help="seconds of one timing")
    parser.add_argument("--out", type=Path, help="folder for busy.json and table.md")
    options = parser.parse_args()
    arguments = [
        "--layers", options.layers, "--vocab-sizes", options.vocab_size,
        "--time-budget", options.time_budget,
    ]  # fmt: skip
    console = Console()
    records_by_condition = {}
    for condition in CONDITIONS:
        with console.status(condition.name):
            records_by_condition[condition.name] = time_under(condition, arguments)
        console.print(condition.name, steps(records_by_condition[condition.name]))
    text = markdown(records_by_condition)
    advice = {one.name: first_advice(one) for one in CONDITIONS if not (one.after or one.spins)}
    text += "\n" + "".join(
        f"* first advice, {name}: {seconds:.0f} s, from {sizes} of {len(SIZES)} sizes\n"
        for name, (seconds, sizes) in advice.items()
    )
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    records = {name: msgspec.to_builtins(records) for name, records in records_by_condition.items()}
    write_results(options.out, "busy", text, first_advice=advice, records=records)


if __name__ == "__main__":
    main()
