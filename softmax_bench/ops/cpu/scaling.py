"""Gradients times one number: that of their loss, or what makes them short enough."""

from __future__ import annotations

import torch
from torch import Tensor

from softmax_bench.ops.dispatch import by_device


@by_device
def scale_(gradient: Tensor, factor: Tensor) -> None:
    """``gradient *= factor``, in place; ``factor`` is one number."""
    # It is nearly always 1. On a CPU a look is cheaper than a pass over V x H; on an accelerator
    # it would stop the queue.
    if factor.device.type != "cpu" or float(factor) != 1.0:
        gradient.mul_(factor.to(gradient.dtype))


@by_device
def scale_all_(factor: Tensor, gradients: list[Tensor]) -> None:
    """:func:`scale_` of several gradients."""
    if factor.device.type != "cpu" or float(factor) != 1.0:
        torch._foreach_mul_(gradients, factor)
