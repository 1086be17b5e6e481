"""Timing that the drift of a shared machine does not decide.

Candidates take turns, A B C, A B C, ... in an order shuffled anew each round, so that a machine
that slows down for a while slows all of them. Reported is the median, with a bootstrap interval.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

Phases = Mapping[str, float]
"""Seconds by phase of one step."""


@dataclass(frozen=True)
class Interval:
    """Seconds of a phase: median and 95 % bootstrap interval of the median."""

    median: float
    low: float
    high: float
    repetitions: int

    @property
    def relative_width(self) -> float:
        """Width of the interval as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def clock(device: torch.device) -> float:
    """Seconds of a running clock, when all that was asked of ``device`` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def summarise(samples: list[float], resamples: int = 1000) -> Interval:
    """Median of ``samples`` and its percentile-bootstrap interval."""
    array = np.asarray(samples)
    rng = np.random.default_rng(0)
    drawn = array[rng.integers(len(array), size=(resamples, len(array)))]
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return Interval(float(np.median(array)), float(low), float(high), len(samples))


def interleave(
    candidates: Mapping[str, Callable[[], Phases]],
    *,
    budget_seconds: float,
    min_repetitions: int = 5,
    max_repetitions: int = 200,
    target_width: float = 0.02,
    on_round: Callable[[float], None] = lambda share: None,
) -> dict[str, dict[str, Interval]]:
    """Time candidates against each other.

    A candidate is done when the interval of its phase ``"step"`` is narrower than
    ``target_width``, when the budget is spent, or after ``max_repetitions``; but never before
    ``min_repetitions``. The first run of each warms up and is not counted.

    Args:
        candidates: Each runs one step and returns the seconds of its phases, ``"step"`` included.
        budget_seconds: For all together; exceeded only for the least repetitions.
        min_repetitions: Fewest counted runs of each.
        max_repetitions: Most counted runs of each.
        target_width: Of the interval, as a share of the median.
        on_round: Told after each round which share of the budget is spent.

    Returns:
        By candidate and phase, the interval.
    """
    samples: dict[str, list[Phases]] = {name: [] for name in candidates}
    order = random.Random(0)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for run in candidates.values():
            run()
        started = time.perf_counter()
        unfinished = list(candidates)
        while unfinished:
            order.shuffle(unfinished)
            for name in unfinished:
                samples[name].append(candidates[name]())
            spent = (time.perf_counter() - started) / budget_seconds
            on_round(min(1.0, spent))
            unfinished = [
                name
                for name in unfinished
                if not _done(samples[name], spent, min_repetitions, max_repetitions, target_width)
            ]
    finally:
        if collecting:
            gc.enable()
    return {
        name: {phase: summarise([run[phase] for run in runs]) for phase in runs[0]}
        for name, runs in samples.items()
    }


def _done(runs: list[Phases], spent: float, least: int, most: int, target_width: float) -> bool:
    if len(runs) < least:
        return False
    if spent >= 1.0 or len(runs) >= most:
        return True
    steps = [run["step"] for run in runs]
    return summarise(steps, resamples=200).relative_width <= target_width
