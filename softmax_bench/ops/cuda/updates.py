"""Row-sparse gradients as optimisers need them, and one step of each optimiser in one pass.

A pass reads the gradient once, and reads and writes each number of the state and of the parameter
once. It also serves dense parameters, because torch's own Adagrad has no such kernel for CUDA.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from softmax_bench.ops.cuda.launch import row_grid, sums_of, warps_for
from softmax_bench.ops.cuda.rows import distinct_rows, sum_rows

_DENSE_ROW = 1024
"""Numbers of a dense parameter that one program updates."""


def sum_entries(values: Tensor, ids: Tensor, num_rows: int) -> Tensor:
    """The row-sparse gradient in which entry p adds ``values[p]`` to row ``ids[p]``."""
    return sum_rows(distinct_rows(ids, num_rows), values, num_rows)


def merged(gradient: Tensor) -> Tensor:
    """The same row-sparse gradient with each row once, as :func:`sum_rows` makes them."""
    ids = gradient._indices()[0]
    if _count(ids) is not None:
        return gradient
    return sum_entries(gradient._values(), ids, gradient.shape[0])


def _count(rows: Tensor) -> Tensor | None:
    count: Tensor | None = getattr(rows.untyped_storage(), "distinct_count", None)
    return count


def row_norm(values: Tensor, rows: Tensor) -> Tensor:
    """The 2-norm of the values of distinct ``rows``."""
    grid, block = row_grid(values.shape[0], values.shape[1:].numel())
    squares = torch.empty(grid, dtype=sums_of(values), device=values.device)
    of_rows = values, _count(rows), squares, values.shape[1:].numel(), block
    _squares[grid](*of_rows, num_warps=warps_for(block))
    return squares.sum().sqrt()


def scale_rows_(values: Tensor, rows: Tensor, factor: Tensor) -> None:
    """Multiply the values of distinct ``rows`` by one number."""
    grid, block = row_grid(values.shape[0], values.shape[1:].numel())
    of_rows = values, _count(rows), factor, values.shape[1:].numel(), block
    _scale[grid](*of_rows, num_warps=warps_for(block))


def sgd(parameter: Tensor, rows: Tensor | None, values: Tensor, *, lr: float) -> None:
    """Stochastic gradient descent on distinct ``rows``, or all, whose gradient is ``values``."""
    _step(0, parameter, values, rows, parameter, parameter, lr=lr)


def adagrad(
    parameter: Tensor, total: Tensor, rows: Tensor | None, values: Tensor, *, lr: float, eps: float
) -> None:
    """Adagrad, with sums of squares in ``total``."""
    _step(1, parameter, values, rows, total, parameter, lr=lr, eps=eps)


def adam(
    parameter: Tensor,
    mean: Tensor,
    square: Tensor,
    rows: Tensor | None,
    values: Tensor,
    *,
    step: Tensor,
    lr: float,
    eps: float,
    betas: tuple[float, float],
    weight_decay: float = 0.0,
) -> None:
    """Adam, lazy where there are rows, or AdamW, with running means in ``mean`` and ``square``."""
    _step(
        2, parameter, values, rows, mean, square,
        lr=lr, eps=eps, betas=betas, step=step, weight_decay=weight_decay,
    )  # fmt: skip


def _step(
    rule: int,
    parameter: Tensor,
    values: Tensor,
    rows: Tensor | None,
    first: Tensor,
    second: Tensor,
    *,
    lr: float,
    eps: float = 0.0,
    betas: tuple[float, float] = (1.0, 1.0),
    step: Tensor | None = None,
    weight_decay: float = 0.0,
) -> None:
    assert parameter.is_contiguous()
    numel = parameter.numel()
    if rows is None:
        width, most = _DENSE_ROW, triton.cdiv(numel, _DENSE_ROW)
    else:
        width, most = parameter.shape[1:].numel(), rows.shape[0]
    if not most or not numel:
        return
    corrections = values
    if step is not None:
        corrections = torch.stack([1 - betas[0] ** step, 1 - betas[1] ** step])
    grid, block = row_grid(most, width)
    _update[grid](
        parameter, values.contiguous(), first, second,
        values if rows is None else rows, values if rows is None else _count(rows), corrections,
        lr, eps, 1 - betas[0], 1 - betas[1], weight_decay, width, numel, most,
        rule, rows is None, block, num_warps=warps_for(block),
    )  # fmt: skip


@triton.jit
def _update(
    WEIGHT, GRADIENT, FIRST, SECOND, IDS, COUNT, CORRECTIONS,
    lr, eps, share1, share2, weight_decay, width, numel, most,
    RULE: tl.constexpr, DENSE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Update some columns of a strided set of rows."""
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    last = most if DENSE else tl.load(COUNT)
    for i in range(tl.program_id(0), last, tl.num_programs(0)):
        row = tl.zeros((1,), tl.int64) + i
        source = row * width + columns
        if not DENSE:
            row = tl.load(IDS + row)
        at = row * width + columns
        there = (columns < width) & (at >= 0) & (at < numel)
        weight = tl.load(WEIGHT + at, mask=there, other=0.0)
        dtype = tl.float64 if weight.dtype == tl.float64 else tl.float32
        weight = weight.to(dtype)
        gradient = tl.load(GRADIENT + source, mask=there, other=0.0).to(dtype)
        if RULE == 0:
            weight -= lr * gradient
        else:
            first = tl.load(FIRST + at, mask=there, other=0.0).to(dtype)
            if RULE == 1:
                first += gradient * gradient
                weight -= lr * gradient / (tl.sqrt(first) + eps)
            else:
                weight *= 1.0 - lr * weight_decay
                second = tl.load(SECOND + at, mask=there, other=0.0).to(dtype)
                first += (gradient - first) * share1
                second += (gradient * gradient - second) * share2
                mean = first / tl.load(CORRECTIONS).to(dtype)
                root = tl.sqrt(second / tl.load(CORRECTIONS + 1).to(dtype))
                weight -= lr * mean / (root + eps)
                tl.store(SECOND + at, second.to(SECOND.dtype.element_ty), mask=there)
            tl.store(FIRST + at, first.to(FIRST.dtype.element_ty), mask=there)
        tl.store(WEIGHT + at, weight.to(WEIGHT.dtype.element_ty), mask=there)


@triton.jit
def _squares(VALUES, COUNT, SQUARES, width, BLOCK: tl.constexpr):
    """Sum the squares of some columns of a strided set of rows."""
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), SQUARES.dtype.element_ty)
    for i in range(tl.program_id(0), tl.load(COUNT), tl.num_programs(0)):
        place = (tl.zeros((1,), tl.int64) + i) * width + columns
        value = tl.load(VALUES + place, mask=columns < width, other=0.0).to(total.dtype)
        total += value * value
    to = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(SQUARES + to, tl.sum(total, 0))


@triton.jit
def _scale(VALUES, COUNT, FACTOR, width, BLOCK: tl.constexpr):
    """Multiply some columns of a strided set of rows by the factor."""
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    factor = tl.load(FACTOR)
    for i in range(tl.program_id(0), tl.load(COUNT), tl.num_programs(0)):
        place = (tl.zeros((1,), tl.int64) + i) * width + columns
        value = tl.load(VALUES + place, mask=columns < width, other=0.0)
        scaled = (value * factor).to(VALUES.dtype.element_ty)
        tl.store(VALUES + place, scaled, mask=columns < width)
