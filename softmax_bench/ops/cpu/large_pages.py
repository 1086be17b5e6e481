"""Big buffers in large pages.

The operating system hands out fresh memory a page at a time and fills it with zeros at the first
touch. In pages of 4 KiB that costs more than writing a gradient does: 62 ms for 100 MB here, 22 ms
in pages of 2 MiB. Linux gives those where a program asks for them.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

_LARGE_PAGE = 2**21
_ADVICE = 14
"""``MADV_HUGEPAGE`` of Linux."""
_LEAST = 2**25
"""Bytes. Smaller buffers malloc takes from memory that it keeps, whose pages are there already."""


def empty_buffer(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised tensor, in large pages where it is big and the system has them."""
    buffer = torch.empty(shape, dtype=dtype, device=device)
    if device.type == "cpu" and buffer.nbytes >= _LEAST:
        advise = _advise()
        if advise is not None:
            start = -(-buffer.data_ptr() // _LARGE_PAGE) * _LARGE_PAGE
            end = (buffer.data_ptr() + buffer.nbytes) // _LARGE_PAGE * _LARGE_PAGE
            advise(start, end - start, _ADVICE)  # a refusal costs nothing but the speed
    return buffer


@cache
def _advise() -> Callable[[int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return advise
