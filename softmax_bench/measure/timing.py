"""Timing that is robust against the drift of a shared machine.

Candidates alternate, A B C, A B C, ... in an order shuffled in each round, so that a temporary
slowdown affects all of them. A turn is two runs, of which the second counts, because the first
finds the caches full of the others' data. The result is the median, with a bootstrap interval.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import torch

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.intervals import median_interval
from softmax_bench.records.result import Timing

WARMUP_RUNS = 10
WARMUP_SHARE = 0.2
"""Maximum share of a candidate's share of the budget for uncounted runs."""
LONG_RUN = 0.05
"""Seconds beyond which the others' data in the caches no longer matters: its effect is below 2 % of
a run.
"""

Phases = Mapping[str, float]
"""Seconds of one step by phase."""


Moment = float | torch.cuda.Event
"""A moment of a running clock, or an event of a device."""


def moment(device: torch.device) -> Moment:
    """The current moment; on CUDA, an event in the device's queue, so that nothing waits."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def elapsed(begin: Moment, end: Moment) -> float:
    """Seconds between two moments; waits until the device has reached the second."""
    if isinstance(begin, float) or isinstance(end, float):
        assert isinstance(begin, float)
        assert isinstance(end, float)
        return end - begin
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def summarise(samples: Sequence[float], resamples: int = 1000) -> Timing:
    """Median of ``samples``, given in the order in which they were taken, and its interval."""
    low, high = median_interval(samples, resamples)
    return Timing(median=float(np.median(samples)), low=low, high=high, repetitions=len(samples))


def interleave(
    candidates: Mapping[str, Callable[[], Phases]],
    *,
    budget_seconds: float,
    min_repetitions: int = 5,
    max_repetitions: int = 200,
    target_width: float = 0.02,
    on_round: Callable[[float], None] = lambda share: None,
    now: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, Timing]]:
    """Time candidates against each other.

    All continue until the interval of the phase ``"step"`` is narrower than ``target_width`` for
    every one of them, because one that left early would have been timed under other conditions.
    The exception is a candidate whose minimum repetitions alone exceed its even share of the
    budget: it stops after those, and the others continue without it.

    Args:
        candidates: Functions that run one step and return its phases, including ``"step"``.
        budget_seconds: Seconds for all together; exceeded only for the minimum repetitions.
        min_repetitions: Minimum number of counted runs of each.
        max_repetitions: Maximum number of counted runs of each.
        target_width: Width of the interval, relative to the median.
        on_round: Called after each round with the share of the budget that is spent.
        now: Clock for the budget, in seconds.

    Returns:
        The median and its interval by candidate and phase; for ``"step"`` the samples too.

    Raises:
        SoftmaxBenchError: There are no candidates, or the budget or repetitions are invalid.
    """
    if not candidates:
        raise SoftmaxBenchError("nothing to time: expected at least one candidate")
    if not budget_seconds > 0:
        raise SoftmaxBenchError(f"the budget must be above 0 seconds, not {budget_seconds}")
    if not 1 <= min_repetitions <= max_repetitions:
        raise SoftmaxBenchError(
            "expected 1 <= min_repetitions <= max_repetitions, "
            f"not {min_repetitions} and {max_repetitions}"
        )
    share = budget_seconds / len(candidates)
    samples: dict[str, list[Phases]] = {name: [] for name in candidates}
    spent = dict.fromkeys(candidates, 0.0)
    running = list(candidates)
    stopped = dict.fromkeys(candidates, "repetitions")
    look = min_repetitions
    order = random.Random(0)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        last = {name: _warm_up(run, WARMUP_SHARE * share, now) for name, run in candidates.items()}
        for repetitions in range(1, max_repetitions + 1):
            order.shuffle(running)
            for name in running:
                begin = now()
                if len(running) > 1 and last[name] < LONG_RUN:
                    candidates[name]()
                samples[name].append(candidates[name]())
                last[name] = samples[name][-1]["step"]
                spent[name] += now() - begin
            on_round(sum(min(share, seconds) for seconds in spent.values()) / budget_seconds)
            if repetitions < min_repetitions:
                continue
            if repetitions == min_repetitions:
                stopped |= {name: "budget" for name in running if spent[name] >= share}
                running = [name for name in running if spent[name] < share]
            if sum(spent[name] for name in running) >= share * len(running):
                stopped |= dict.fromkeys(running, "budget")
                break
            if repetitions >= look:  # checks take time, and may stop too early
                look = math.ceil(1.1 * repetitions) + 1
                if all(_precise(samples[name], target_width) for name in running):
                    stopped |= dict.fromkeys(running, "precise")
                    break
    finally:
        if collecting:
            gc.enable()
    return {
        name: {phase: _timing(runs, phase, stopped[name]) for phase in runs[0]}
        for name, runs in samples.items()
    }


def _timing(runs: list[Phases], phase: str, stopped: str) -> Timing:
    seconds = [run[phase] for run in runs]
    samples = seconds if phase == "step" else None
    return msgspec.structs.replace(summarise(seconds), samples=samples, stopped=stopped)


def _warm_up(run: Callable[[], Phases], limit: float, now: Callable[[], float]) -> float:
    """Run until two runs in a row are hardly faster; return the seconds of the fastest one."""
    # At least twice: the first run creates the optimiser's state, the second settles the allocator.
    fastest, steady, begin = math.inf, 0, now()
    for number in range(WARMUP_RUNS):
        if number >= 2 and (steady >= 2 or now() - begin > limit):
            break
        seconds = run()["step"]
        steady = steady + 1 if seconds > 0.95 * fastest else 0
        fastest = min(fastest, seconds)
    return fastest


def _precise(runs: list[Phases], target_width: float) -> bool:
    steps = [run["step"] for run in runs]
    return summarise(steps, resamples=200).relative_width <= target_width
