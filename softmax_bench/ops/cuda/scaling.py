"""Multiply gradients by one number without reading it on the host, which would stall the queue."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096
_PROGRAMS = 1024


@triton.jit
def scale_kernel(G, FACTOR, numel, BLOCK: tl.constexpr):
    """Multiply by a number that is nearly always 1, in which case nothing is read or written."""
    factor = tl.load(FACTOR)
    if factor != 1:
        start = tl.program_id(0).to(tl.int64) * BLOCK
        while start < numel:
            place = start + tl.arange(0, BLOCK)
            inside = place < numel
            values = tl.load(G + place, mask=inside, other=0.0)
            tl.store(G + place, (values * factor).to(G.dtype.element_ty), mask=inside)
            start += tl.num_programs(0) * BLOCK


def scale_(gradient: Tensor, factor: Tensor) -> None:
    """Multiply ``gradient`` by ``factor``, in place."""
    if not gradient.is_contiguous():
        gradient.mul_(factor.to(gradient.dtype))
    elif gradient.numel():
        programs = min(_PROGRAMS, triton.cdiv(gradient.numel(), _BLOCK))
        scale_kernel[(programs,)](gradient, factor.contiguous(), gradient.numel(), BLOCK=_BLOCK)


def scale_all_(factor: Tensor, gradients: list[Tensor]) -> None:
    """Apply :func:`scale_` to several gradients."""
    torch._foreach_mul_(gradients, factor)
