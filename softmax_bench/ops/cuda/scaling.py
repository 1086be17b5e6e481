"""A gradient times the gradient of its loss."""

from __future__ import annotations

from torch import Tensor


def scale_(gradient: Tensor, factor: Tensor) -> None:
    """``gradient *= factor``, in place; a look at the factor would stop the queue."""
    gradient.mul_(factor.to(gradient.dtype))
