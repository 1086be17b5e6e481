"""Progress of a running study: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from softmax_bench.records.record import (
    FailureRecord,
    FidelityRecord,
    NgramRecord,
    Record,
    TrainRecord,
)
from softmax_bench.records.result import TrainResult
from softmax_bench.study.jobs.job import Disturbed, Event, TrainJob, job_id, trials_of
from softmax_bench.study.plan.plan import State, Step
from softmax_bench.study.plan.time_left import RunningStep, TimeLeft
from softmax_bench.study.run.watcher import Watcher

_FACTS_WIDTH = 66
"""Columns of the live table besides the titles."""
_LINE_SECONDS = 30.0
"""Seconds between two progress lines outside a terminal."""


class ProgressDisplay(Watcher):
    """Shows a running study on a console.

    Args:
        console: Where to print.
        slots: Number of steps that run at once.
    """

    def __init__(self, console: Console, slots: int = 1) -> None:
        self._console = console
        self._slots = slots
        self._live = (
            Live(console=console, auto_refresh=False, transient=True)
            if console.is_terminal
            else None
        )
        self._steps: Sequence[Step] = ()
        self._running: dict[int, RunningStep] = {}
        """Keyed by the job object, because hashing one for every event would disturb timings."""
        self._postponed: set[str] = set()
        self._time_left = TimeLeft()
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.update("", refresh=True)
            self._live.stop()

    def planned(self, steps: Sequence[Step]) -> None:
        """Print what there is to do."""
        beginning = not self._steps
        self._steps = steps
        if beginning:
            states = self._states()
            self._print(
                f"{states.total()} trials"
                + (f", {states[State.DONE]} done before" if states[State.DONE] else "")
                + (f", {states[State.FAILED]} failed before" if states[State.FAILED] else "")
            )

    def note(self, text: str) -> None:
        """Print a line."""
        self._print(text, "yellow")

    def started(self, step: Step) -> None:
        """Add a row to the live table."""
        self._running[id(step.job)] = RunningStep(step)

    def reported(self, step: Step, event: Event) -> None:
        """Update the progress of a row."""
        self._running[id(step.job)].update(event)
        if isinstance(event, Disturbed):
            self._print(
                f"{step.title}: disturbed, {event.reasons}; timing is repeated if the machine "
                "becomes quiet soon"
            )

    def finished(self, step: Step, records: Sequence[Record]) -> None:
        """Print a line with the result."""
        run = self._running.pop(id(step.job))
        self._time_left.learn(run)
        self._print(f"{step.title}: {_result(records, run.seconds)}")

    def failed(self, step: Step, failures: Sequence[FailureRecord]) -> None:
        """Print a line with the reason for each trial to blame."""
        del self._running[id(step.job)]
        for failure in failures:
            which = f" ({failure.configuration['layer']})" if len(trials_of(step.job)) > 1 else ""
            self._print(f"{step.title}{which} failed: {failure.reason}", "red")

    def postponed(self, step: Step) -> None:
        """Print a line, the first time."""
        del self._running[id(step.job)]
        job = job_id(step.job)
        if job not in self._postponed:
            self._postponed.add(job)
            self._print(f"{step.title}: running in another study on this store", "yellow")

    def tick(self) -> None:
        """Redraw the table; outside a terminal, print the state from time to time."""
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        elif time.monotonic() - self._last_line >= _LINE_SECONDS:
            for run in self._running.values():
                self._print(", ".join([f"{run.step.title}: {_percent(run)}", *_facts(run)]))
            self._print(self._status())

    def _print(self, text: str, style: str = "") -> None:
        self._last_line = time.monotonic()
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _states(self) -> Counter[State]:
        """The number of trials in each state."""
        return Counter(step.state for step in self._steps for _ in trials_of(step.job))

    def _status(self) -> str:
        states = self._states()
        failed = states[State.FAILED] + states[State.NO_USABLE_RATE]
        left = self._time_left.estimate(self._steps, list(self._running.values()), self._slots)
        return (
            f"{states[State.DONE]} of {states.total()} trials done, {len(self._running)} running, "
            f"{failed} failed" + ("" if left is None else f", about {_clock(left)} left")
        )

    def _table(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        title_width = max(16, self._console.width - _FACTS_WIDTH)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=title_width)
        for _ in range(4):
            table.add_column(no_wrap=True, justify="right")
        for run in self._running.values():
            bar = ProgressBar(total=run.total or None, completed=run.done, width=12)
            facts = "  ".join(_facts(run))
            table.add_row(Text(run.step.title), bar, _percent(run), facts, _clock(run.seconds))
        return Group(table, Text(self._status(), style="bold"))


def _percent(run: RunningStep) -> str:
    return f"{run.done / run.total:.0%}" if run.total else "starts"


def _facts(run: RunningStep) -> Iterator[str]:
    if isinstance(run.step.job, TrainJob):
        if run.rate is not None:
            yield f"{run.rate:,.0f} tokens/s"
        if run.perplexity is not None:
            yield f"ppl {run.perplexity:.1f}"


def _result(records: Sequence[Record], seconds: float) -> str:
    first = records[0]
    if isinstance(first, TrainRecord):
        return _trained(first.result, seconds)
    if isinstance(first, NgramRecord):
        return f"validation perplexity {first.result.valid.perplexity:.2f}"
    if isinstance(first, FidelityRecord):
        return (
            ", ".join(
                f"{record.trial.layer} {record.result.divergence.value:.3f}"
                for record in records
                if isinstance(record, FidelityRecord)
            )
            + " nats from the full model"
        )
    return f"done in {seconds:.0f} s"


def _trained(result: TrainResult, seconds: float) -> str:
    """The result of a training, and where its time went."""
    # Test perplexity appears only in the report, after all choices have been made.
    part = f" on {result.valid.tokens:,} tokens" if result.test is None else ""
    rate = result.train_tokens / result.train_seconds
    evaluation = (result.curve_seconds or 0) + (result.final_seconds or 0)
    return (
        f"validation perplexity {result.valid.perplexity:.2f}{part}; {seconds:.1f} s, of which "
        f"{result.train_seconds:.1f} s training ({rate:,.0f} tokens/s) and {evaluation:.1f} s "
        "evaluation"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
