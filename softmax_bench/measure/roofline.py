"""Measured limits of the machine: multiplying matrices, and moving bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from softmax_bench.layers import Cost
from softmax_bench.measure.timing import elapsed, moment

_PRODUCT_SIZE = 2048
_SMALL_PRODUCT = 256
_COPIED_BYTES = 2**28
_REPETITIONS = 7
_LONGEST = 2.0
"""Seconds after which no further repetition starts."""


@dataclass(frozen=True)
class Machine:
    """The best measured rates."""

    flops: float
    """Floating-point operations per second of a large matrix product, in the dtype in use."""
    products: dict[str, float]
    """The same for the available dtypes, ``"float32"`` and ``"bfloat16"``."""
    bytes: float
    """Bytes per second read and written by a copy far larger than the caches."""

    def least_seconds(self, cost: Cost) -> float:
        """The roofline bound (Williams et al. 2009): all products or all bytes at full rate."""
        return max(cost.flops / self.flops, cost.bytes / self.bytes)

    def bound(self, cost: Cost) -> str:
        """Which of the two limits the step: ``"compute"`` or ``"memory"``."""
        return "compute" if cost.flops / self.flops >= cost.bytes / self.bytes else "memory"


def measure_machine(device: torch.device, dtype: torch.dtype = torch.float32) -> Machine:
    """Measure the rates for rooflines, with products of operands of ``dtype``."""
    products = {
        str(kind).removeprefix("torch."): _product_rate(device, kind)
        for kind in dict.fromkeys((torch.float32, torch.bfloat16, dtype))
    }
    source = torch.ones(_COPIED_BYTES // 4, device=device)
    copy = torch.zeros_like(source)
    seconds = _best(lambda: copy.copy_(source), device)
    return Machine(
        flops=products[str(dtype).removeprefix("torch.")],
        products=products,
        bytes=2.0 * _COPIED_BYTES / seconds,
    )


def _product_rate(device: torch.device, dtype: torch.dtype) -> float:
    # A processor without instructions for the dtype would take a minute for the large product.
    rate = _rate_of(_SMALL_PRODUCT, device, dtype)
    if 2.0 * _PRODUCT_SIZE**3 / rate > _LONGEST:
        return rate
    return _rate_of(_PRODUCT_SIZE, device, dtype)


def _rate_of(size: int, device: torch.device, dtype: torch.dtype) -> float:
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(a)
    return 2.0 * size**3 / _best(lambda: torch.mm(a, b, out=product), device)


def _best(work: Callable[[], object], device: torch.device) -> float:
    """Least seconds of several runs, or of fewer if they take long."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < _REPETITIONS and sum(seconds) < _LONGEST):
        begin = moment(device)
        work()
        seconds.append(elapsed(begin, moment(device)))
    return min(seconds)
