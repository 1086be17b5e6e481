"""What the machine can do at most, measured: multiply matrices, and move bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from softmax_bench.layers import Cost
from softmax_bench.measure.timing import elapsed, moment

_PRODUCT_SIZE = 2048
_COPIED_BYTES = 2**28
_LONGEST = 2.0
"""Seconds of repetitions after which there are no more."""


@dataclass(frozen=True)
class Machine:
    """Best rates seen."""

    flops: float
    """Floating-point operations a second of a large matrix product, in the type that is used."""
    products: dict[str, float]
    """The same of the types that there are, ``"float32"`` and ``"bfloat16"``."""
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
    products = {
        str(kind).removeprefix("torch."): _product_rate(device, kind, repetitions)
        for kind in dict.fromkeys((torch.float32, torch.bfloat16, dtype))
    }
    source = torch.ones(_COPIED_BYTES // 4, device=device)
    copy = torch.zeros_like(source)
    seconds = _best(lambda: copy.copy_(source), device, repetitions)
    return Machine(
        flops=products[str(dtype).removeprefix("torch.")],
        products=products,
        bytes=2.0 * _COPIED_BYTES / seconds,
    )


def _product_rate(device: torch.device, dtype: torch.dtype, repetitions: int) -> float:
    size = _PRODUCT_SIZE
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(a)
    return 2.0 * size**3 / _best(lambda: torch.mm(a, b, out=product), device, repetitions)


def _best(work: Callable[[], object], device: torch.device, repetitions: int) -> float:
    """Least seconds of some runs; few where a processor has no instructions for the type."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < repetitions and sum(seconds) < _LONGEST):
        begin = moment(device)
        work()
        seconds.append(elapsed(begin, moment(device)))
    return min(seconds)
