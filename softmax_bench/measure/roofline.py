"""What the machine can do at most, measured: multiply matrices, and move bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from softmax_bench.layers import Cost
from softmax_bench.measure.timing import clock

_PRODUCT_SIZE = 2048
_COPIED_BYTES = 2**28


@dataclass(frozen=True)
class Machine:
    """Best rates seen."""

    flops: float
    """Floating-point operations a second of a large matrix product."""
    bytes: float
    """Bytes a second read and written by a copy far larger than the caches."""

    def least_seconds(self, cost: Cost) -> float:
        """The roofline bound (Williams et al. 2009): all products or all bytes at full rate."""
        return max(cost.flops / self.flops, cost.bytes / self.bytes)

    def bound(self, cost: Cost) -> str:
        """Which of the two holds the step back: ``"compute"`` or ``"memory"``."""
        return "compute" if cost.flops / self.flops >= cost.bytes / self.bytes else "memory"


def measure_machine(
    device: torch.device, dtype: torch.dtype = torch.float32, *, repetitions: int = 7
) -> Machine:
    """Measure the rates that rooflines are drawn by: the best of some repetitions, after warm-up.

    Args:
        device: Where.
        dtype: Type of the products' operands.
        repetitions: Of each.
    """
    size = _PRODUCT_SIZE
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(a)
    source = torch.ones(_COPIED_BYTES // 4, device=device)
    copy = torch.zeros_like(source)

    def best(work: str) -> float:
        seconds = []
        for _ in range(repetitions):
            begin = clock(device)
            if work == "product":
                torch.mm(a, b, out=product)
            else:
                copy.copy_(source)
            seconds.append(clock(device) - begin)
        return min(seconds)

    return Machine(flops=2.0 * size**3 / best("product"), bytes=2.0 * _COPIED_BYTES / best("copy"))
