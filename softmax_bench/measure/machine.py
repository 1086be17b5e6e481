"""What the machine can do at most: the two ceilings of a roofline.

Both are what torch reaches here, with the threads it has now, not what a data sheet promises.
See Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from softmax_bench.measure.timing import clock, interleave


def gemm_rate(
    dtype: torch.dtype = torch.float32, *, size: int = 1024, seconds: float = 0.5
) -> float:
    """Floating-point operations a second of a ``size`` x ``size`` matrix product on the CPU."""
    left, right = torch.randn(2, size, size).to(dtype)
    product = torch.empty(size, size, dtype=dtype)
    return 2.0 * size**3 / _median_seconds(lambda: torch.mm(left, right, out=product), seconds)


def memory_bandwidth(*, num_bytes: int = 1 << 28, seconds: float = 0.5) -> float:
    """Bytes a second of a copy on the CPU, read and written bytes counted.

    Args:
        num_bytes: Of the array copied: well above the last cache, or it is that which is timed.
        seconds: How long to measure.
    """
    source = torch.ones(num_bytes, dtype=torch.uint8)
    copy = torch.empty_like(source)
    return 2.0 * num_bytes / _median_seconds(lambda: copy.copy_(source), seconds)


def _median_seconds(run: Callable[[], object], seconds: float) -> float:
    cpu = torch.device("cpu")

    def step() -> dict[str, float]:
        begin = clock(cpu)
        run()
        return {"step": clock(cpu) - begin}

    return interleave({"run": step}, budget_seconds=seconds)["run"]["step"].median
