"""A plan as a table: each step, its state, and its estimated cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from softmax_bench.study.jobs.job import SpeedJob
from softmax_bench.study.plan.estimate import Estimator, memory_mistake, memory_warnings
from softmax_bench.study.plan.grid import workers_of
from softmax_bench.study.plan.plan import State, Step, ids_of
from softmax_bench.study.study import Study

_STYLES = {
    State.DONE: "green",
    State.FAILED: "red",
    State.NO_USABLE_RATE: "red",
    State.WAITING: "dim",
}


def print_plan(steps: Sequence[Step], estimator: Estimator, study: Study, console: Console) -> None:
    """Print all steps and what is left to do."""
    table = Table("step", "state", "time", "memory", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    training = timing = most = 0.0
    for step in steps:
        cells = [Text(step.title), Text(step.state, style=_STYLES.get(step.state, ""))]
        if step.state in (State.DUE, State.WAITING):
            estimate = estimator.estimate(step)
            cells += [Text(clock(estimate.seconds)), Text(f"{estimate.bytes / 1e9:.2g} GB")]
            most = max(most, estimate.bytes)
            if isinstance(step.job, SpeedJob):
                timing += estimate.seconds
            else:
                training += estimate.seconds
        table.add_row(*cells)
    console.print(table)
    states = Counter(step.state for step in steps for _ in ids_of(step))
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    console.print(f"{states.total()} trials: {counts}", highlight=False)
    if training + timing:
        seconds = training / workers_of(study) + timing
        _print_rest(steps, seconds, most, estimator, study, console)


def _print_rest(
    steps: Sequence[Step],
    seconds: float,
    most: float,
    estimator: Estimator,
    study: Study,
    console: Console,
) -> None:
    workers = workers_of(study)
    factor = (
        f"from {estimator.learned_from} finished models"
        if estimator.learned_from
        else "from the reference results"
    )
    lines = [
        f"About {clock(seconds)} on this machine with {workers} worker{'s' * (workers > 1)}: "
        f"products and bytes at the rates just measured, times {estimator.slowdown:.2g} ({factor})."
        " The estimate is often off by a factor of two.",
        f"At most about {most / 1e9:.2g} GB in one process.",
    ]
    for line in lines:
        console.print(line, highlight=False)
    for doubt in filter(None, [memory_mistake(steps), *memory_warnings(steps, workers)]):
        console.print(f"{doubt}.", style="yellow", highlight=False)


def clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))
