"""Gradients times one number, at which no look is taken: it would stop the queue."""

from __future__ import annotations

import torch
from torch import Tensor


def scale_(gradient: Tensor, factor: Tensor) -> None:
    """``gradient *= factor``, in place."""
    gradient.mul_(factor.to(gradient.dtype))


def scale_all_(factor: Tensor, gradients: list[Tensor]) -> None:
    """:func:`scale_` of several gradients."""
    torch._foreach_mul_(gradients, factor)
