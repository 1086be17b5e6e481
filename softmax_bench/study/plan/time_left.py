"""How long a running study will still take, from what its steps have taken so far."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import mean

from softmax_bench.study.jobs.job import Evaluated, Event, Progress, SpeedJob, TrainJob
from softmax_bench.study.plan.plan import State, Step

_TIMING_OVERHEAD = 1.5
"""Timing takes its budget and, beyond it, the making of the layers and the account of memory."""


@dataclass
class RunningStep:
    """A step that runs, and how far it is."""

    step: Step
    began: float = field(default_factory=lambda: time.monotonic())
    done: float = 0.0
    total: float = 0.0
    perplexity: float | None = None
    """Of the validation text, at the last evaluation."""
    _first: tuple[float, float] | None = None
    _last: float = 0.0

    def hear(self, event: Event) -> None:
        """Take note of what the step tells."""
        if isinstance(event, Progress):
            self._last, self.done, self.total = time.monotonic(), event.done, event.total
            # Counted from here: neither the start of the process nor what it went on from is rate.
            self._first = self._first or (self._last, self.done)
        elif isinstance(event, Evaluated):
            self.perplexity = event.valid_perplexity

    @property
    def seconds(self) -> float:
        """Since the step began."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float | None:
        """Progress a second."""
        if self._first is None or self._last <= self._first[0]:
            return None
        return (self.done - self._first[1]) / (self._last - self._first[0])


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
            key = job.trial.layer, job.trial.vocab_size
            self._seconds_per_token[key] = run.seconds / job.trial.max_tokens

    def estimate(
        self, steps: Iterable[Step], running: Sequence[RunningStep], slots: int
    ) -> float | None:
        """Seconds until all is done; None as long as nothing is known."""
        known = list(self._seconds_per_token.values())
        known += [1 / run.rate for run in running if run.rate and _trains(run.step)]
        training = timing = 0.0
        started = {id(run.step.job) for run in running}
        for step in steps:
            if step.state not in (State.DUE, State.WAITING) or id(step.job) in started:
                continue
            if isinstance(step.job, SpeedJob):
                timing += _TIMING_OVERHEAD * step.job.budget_seconds
            elif isinstance(step.job, TrainJob):
                if not known:
                    return None
                trial = step.job.trial
                key = trial.layer, trial.vocab_size
                training += trial.max_tokens * self._seconds_per_token.get(key, mean(known))
        for run in running:
            if run.rate:
                rest = (run.total - run.done) / run.rate
                training, timing = (
                    (training + rest, timing) if _trains(run.step) else (training, timing + rest)
                )
        return training / slots + timing


def _trains(step: Step) -> bool:
    return isinstance(step.job, TrainJob)
