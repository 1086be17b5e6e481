"""Timing that the drift of a shared machine does not decide.

Candidates take turns, A B C, A B C, ... in an order shuffled anew each round, so that a machine
that slows down for a while slows all of them. A turn is two runs, of which the second counts: the
first finds the caches full of what the others have left. Reported is the median, with a bootstrap
interval.
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
"""Of a candidate's share of the budget, at most, before anything is counted."""
LONG_RUN = 0.05
"""Seconds after which what others left in the caches no longer matters: below 2 % of a run."""

Phases = Mapping[str, float]
"""Seconds by phase of one step."""


Moment = float | torch.cuda.Event
"""Of a running clock, or of a device's own."""


def moment(device: torch.device) -> Moment:
    """Now; on CUDA an event in the device's queue, so that nobody waits for anybody."""
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
    """Median of ``samples``, in the order in which they were taken, and its interval."""
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

    All go on together until the interval of the phase ``"step"`` is narrower than
    ``target_width`` for every one of them: one that left early would have been timed on the
    machine of another moment. The exception is a candidate whose least repetitions alone take
    more than its even share of the budget: it stops with those, and the rest go on without it.

    Args:
        candidates: Each runs one step and returns the seconds of its phases, ``"step"`` included.
        budget_seconds: For all together; exceeded only for the least repetitions.
        min_repetitions: Fewest counted runs of each.
        max_repetitions: Most counted runs of each.
        target_width: Of the interval, as a share of the median.
        on_round: Told after each round which share of the budget is spent.
        now: Clock that the budget is kept by, in seconds.

    Returns:
        By candidate and phase the median and its interval; of ``"step"`` the samples too.

    Raises:
        SoftmaxBenchError: No candidates, or a budget or a number of repetitions that is no such.
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
            if repetitions >= look:  # looks cost time, and each is one more chance to stop too soon
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
    kept = seconds if phase == "step" else None
    return msgspec.structs.replace(summarise(seconds), samples=kept, stopped=stopped)


def _warm_up(run: Callable[[], Phases], limit: float, now: Callable[[], float]) -> float:
    """Uncounted runs until two in a row are hardly faster than the fastest before them.

    At least two: the first makes the optimiser's state, the second is slow while the allocator
    settles. At most :data:`WARMUP_RUNS`, and none begins after ``limit`` seconds. Returns the
    seconds of the fastest.
    """
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
