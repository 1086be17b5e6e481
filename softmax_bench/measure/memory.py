"""Exact peak memory of a computation, from the allocator and not from the size of the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def stored_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's numbers; for a row-sparse one, of its rows and their ids."""
    if not tensor.is_sparse:
        return tensor.nbytes
    tensor = tensor.coalesce()
    return tensor.indices().nbytes + tensor.values().nbytes


OPTIMIZER_STATES = {"sgd": 0, "adagrad": 1, "adam": 2, "adamw": 2}
"""Numbers that each optimiser stores per parameter."""


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Peak bytes held by tensors during ``run()``, beyond those held before.

    On a CPU, this follows every allocation and release by torch. Scratch memory inside the BLAS is
    not visible, nor is the release of what was held before ``run()``; if that is released, the peak
    is an upper bound. On CUDA, it is the caching allocator's own count.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    with (
        _silent_stderr(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        run()
    current = peak = 0
    for event in sorted(
        (e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"),
        key=lambda e: e.start_ns(),
    ):
        current += event.nbytes()
        peak = max(peak, current)
    return peak


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Suppress what the profiler's C++ library prints about its own start and stop."""
    sys.stderr.flush()
    original = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(original, 2)
        os.close(nowhere)
        os.close(original)
