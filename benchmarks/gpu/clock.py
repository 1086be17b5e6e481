"""Time, peak memory and synchronisations of a step; fewer of these on a CPU."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable

import torch

from softmax_bench.measure.memory import peak_bytes
from softmax_bench.measure.timing import elapsed, moment

Run = Callable[[], object]


def median_seconds(run: Run, device: torch.device, *, seconds: float = 1.0) -> float:
    """Median seconds of up to 30 runs, after two warm-up runs."""
    for _ in range(2):
        run()
    samples: list[float] = []
    begun = time.perf_counter()
    while len(samples) < 5 or (len(samples) < 30 and time.perf_counter() - begun < seconds):
        begin = moment(device)
        run()
        samples.append(elapsed(begin, moment(device)))
    return statistics.median(samples)


def peak_gib(run: Run, device: torch.device) -> float:
    """Peak GiB beyond what was held before."""
    return peak_bytes(run, device) / 2**30


def waits(run: Run, device: torch.device) -> int | None:
    """How often a run synchronises with the GPU, as counted by torch."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen)
