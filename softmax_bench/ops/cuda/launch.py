"""Launch parameters of kernels: block sizes, numbers of warps, dtypes of sums."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from softmax_bench.ops.cpu.exponentials import accumulator


def block_of(width: int) -> int:
    """The power of two that holds a row of this many numbers."""
    return int(triton.next_power_of_2(max(1, width)))


def warps_for(block: int) -> int:
    """Warps for a block of this many numbers: at least eight per thread, at most 16 warps."""
    return max(1, min(16, block // 256))


def sums_of(tensor: Tensor) -> torch.dtype:
    """The dtype in which a kernel sums this tensor's numbers."""
    return accumulator(tensor.dtype)


def packed(tensor: Tensor | None) -> Tensor | None:
    """The same numbers side by side: kernels take nothing else."""
    return None if tensor is None else tensor.contiguous()


def precision(tensor: Tensor) -> str:
    """How products inside kernels multiply float32, following torch's own setting."""
    return "tf32" if torch.get_float32_matmul_precision() != "highest" else "ieee"


_PROGRAMS = 4096
"""Programs that share the rows of a gradient, whose number only the device knows."""
_COLUMNS = 2048
"""Columns that a program holds at once."""


def row_grid(num_rows: int, width: int) -> tuple[tuple[int, int], int]:
    """Programs by rows and by columns, and columns per program, for up to this many rows."""
    block = min(_COLUMNS, block_of(width))
    columns = triton.cdiv(max(1, width), block)
    return (max(1, min(num_rows, triton.cdiv(_PROGRAMS, columns))), columns), block
