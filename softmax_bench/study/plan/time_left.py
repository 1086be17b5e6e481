"""How long a running study will still take, from what its steps have taken so far."""

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

_TIMING_OVERHEAD = 1.5
"""Timing takes its budget and, beyond it, the making of the layers and the account of memory."""
_MARK_SECONDS = 1.0
"""Between two marks: reports come in groups, which say nothing of the time between them."""
_LEAST_MARKS = 4
"""Before these, a step has no rate: the first moments are not like the rest."""
_MOST_MARKS = 31


@dataclass
class RunningStep:
    """A step that runs, and how far it is."""

    step: Step
    began: float = field(default_factory=lambda: time.monotonic())
    done: float = 0.0
    total: float = 0.0
    perplexity: float | None = None
    """Of the validation text, at the last evaluation."""
    _marks: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_MOST_MARKS))
    """Times, and what was done by then."""

    def hear(self, event: Event) -> None:
        """Take note of what the step tells."""
        if isinstance(event, Progress):
            now, self.done, self.total = time.monotonic(), event.done, event.total
            if not self._marks or now - self._marks[-1][0] >= _MARK_SECONDS:
                self._marks.append((now, event.done))
        elif isinstance(event, Evaluated):
            self.perplexity = event.valid_perplexity

    @property
    def seconds(self) -> float:
        """Since the step began."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float | None:
        """Progress a second, the median of late: evaluations and a machine's pauses are not in it.

        None while the step has only begun.
        """
        if len(self._marks) < _LEAST_MARKS:
            return None
        return median(
            (done - before) / (now - then) for (then, before), (now, done) in pairwise(self._marks)
        )


class TimeLeft:
    """Learns from each step that has ended what those like it take.

    A model of a layer and vocabulary size that was trained before takes the same time a token;
    others the mean of all.
    """

    def __init__(self) -> None:
        self._seconds_per_token: dict[tuple[str, int], float] = {}

    def learn(self, run: RunningStep) -> None:
        """A step has ended well."""
        job = run.step.job
        if isinstance(job, TrainJob):
            self._seconds_per_token[_kind(job)] = run.seconds / job.trial.max_tokens

    def estimate(
        self, steps: Iterable[Step], running: Sequence[RunningStep], slots: int
    ) -> float | None:
        """Seconds until all is done; None as long as nothing is known."""
        known = self._with(running)
        training = timing = 0.0
        for step in steps:
            if step.state not in (State.DUE, State.WAITING):
                continue
            job = step.job  # made again with every plan, so that equal ones are the same
            run = next((run for run in running if run.step.job == job), None)
            share = 1 - run.done / run.total if run is not None and run.total else 1.0
            if isinstance(job, SpeedJob):
                timing += share * _TIMING_OVERHEAD * job.budget_seconds
            elif isinstance(job, FidelityJob):
                if run is None or run.rate is None:
                    return None
                training += share * run.total / run.rate
            elif isinstance(job, TrainJob):
                if not known:
                    return None
                seconds = known.get(_kind(job), mean(known.values()))
                training += share * job.trial.max_tokens * seconds
        return training / slots + timing

    def _with(self, running: Sequence[RunningStep]) -> dict[tuple[str, int], float]:
        """Seconds a token; what runs counts as far as it is done, where others have ended."""
        known = dict(self._seconds_per_token)
        for run in running:
            if isinstance(run.step.job, TrainJob) and run.rate:
                kind, share = _kind(run.step.job), run.done / run.total
                before = self._seconds_per_token.get(kind, 1 / run.rate)
                known[kind] = (1 - share) * before + share / run.rate
        return known


def _kind(job: TrainJob) -> tuple[str, int]:
    return job.trial.layer, job.trial.vocab_size
