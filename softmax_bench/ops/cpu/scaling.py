"""Multiply gradients by one number: that of their loss, or the factor of clipping."""

from __future__ import annotations

import torch
from torch import Tensor

from softmax_bench.ops.dispatch import by_device


@by_device
def scale_(gradient: Tensor, factor: Tensor) -> None:
    """Multiply ``gradient`` by the single number ``factor``, in place."""
    # It is nearly always 1. On a CPU, checking is cheaper than a pass over V x H; on an
    # accelerator, it would stall the queue.
    if factor.device.type != "cpu" or float(factor) != 1.0:
        gradient.mul_(factor.to(gradient.dtype))


@by_device
def scale_all_(factor: Tensor, gradients: list[Tensor]) -> None:
    """Apply :func:`scale_` to several gradients."""
    if factor.device.type != "cpu" or float(factor) != 1.0:
        torch._foreach_mul_(gradients, factor)
