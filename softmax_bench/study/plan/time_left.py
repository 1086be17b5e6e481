"""Remaining time of a running study, based on what its steps have taken so far."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean, median

from softmax_bench.study.jobs.job import (
    Evaluated,
    Event,
    FidelityJob,
    Progress,
    SpeedJob,
    TrainJob,
)
from softmax_bench.study.plan.plan import State, Step

TIMING_OVERHEAD = 1.5
"""Timing takes its budget, and additional time to create layers and measure memory."""
_MARK_SECONDS = 1.0
"""Least seconds between marks: reports arrive in groups, which say nothing about the time between
them.
"""
_LEAST_MARKS = 4
"""A step with fewer marks has no rate, because its first moments are untypical."""
_MOST_MARKS = 31


@dataclass
class RunningStep:
    """A running step and its progress."""

    step: Step
    began: float = field(default_factory=lambda: time.monotonic())
    done: float = 0.0
    total: float = 0.0
    perplexity: float | None = None
    """Validation perplexity at the last evaluation."""
    _marks: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_MOST_MARKS))
    """Times, and the progress by then."""

    def update(self, event: Event) -> None:
        """Record an event of the step."""
        if isinstance(event, Progress):
            now, self.done, self.total = time.monotonic(), event.done, event.total
            if not self._marks or now - self._marks[-1][0] >= _MARK_SECONDS:
                self._marks.append((now, event.done))
        elif isinstance(event, Evaluated):
            self.perplexity = event.valid_perplexity

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float | None:
        """Median recent progress per second, without evaluations and pauses of the machine.

        None if the step has only just begun.
        """
        if len(self._marks) < _LEAST_MARKS:
            return None
        return median(
            (done - before) / (now - then) for (then, before), (now, done) in pairwise(self._marks)
        )


class TimeLeft:
    """Learns from each finished step how long similar ones take.

    Models with the same layer and vocabulary size take the same time per token; others take the
    mean of all.
    """

    def __init__(self) -> None:
        self._seconds_per_token: dict[tuple[str, int], float] = {}

    def learn(self, run: RunningStep) -> None:
        """Record a successful step."""
        job = run.step.job
        if isinstance(job, TrainJob):
            self._seconds_per_token[_kind(job)] = run.seconds / job.trial.max_tokens

    def estimate(
        self, steps: Iterable[Step], running: Sequence[RunningStep], slots: int
    ) -> float | None:
        """Seconds until everything is done; None as long as nothing is known."""
        seconds_per_token = self._with(running)
        training = timing = 0.0
        for step in steps:
            if step.state not in (State.DUE, State.WAITING):
                continue
            job = step.job  # recreated with every plan, so compared by equality
            run = next((run for run in running if run.step.job == job), None)
            # the last window may end beyond the budget
            share = max(0.0, 1 - run.done / run.total) if run is not None and run.total else 1.0
            if isinstance(job, SpeedJob):
                timing += share * TIMING_OVERHEAD * job.budget_seconds
            elif isinstance(job, FidelityJob):
                if run is None or run.rate is None:
                    return None
                training += share * run.total / run.rate
            elif isinstance(job, TrainJob):
                if not seconds_per_token:
                    return None
                seconds = seconds_per_token.get(_kind(job), mean(seconds_per_token.values()))
                training += share * job.trial.max_tokens * seconds
        return training / slots + timing

    def _with(self, running: Sequence[RunningStep]) -> dict[tuple[str, int], float]:
        """Seconds per token; running steps count by their progress once others have ended."""
        seconds_per_token = dict(self._seconds_per_token)
        for run in running:
            if isinstance(run.step.job, TrainJob) and run.rate:
                kind, share = _kind(run.step.job), run.done / run.total
                before = self._seconds_per_token.get(kind, 1 / run.rate)
                seconds_per_token[kind] = (1 - share) * before + share / run.rate
        return seconds_per_token


def _kind(job: TrainJob) -> tuple[str, int]:
    return job.trial.layer, job.trial.vocab_size
