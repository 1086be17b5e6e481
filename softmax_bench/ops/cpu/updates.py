"""Row-sparse gradients as optimisers need them, and one step of each rule on their rows."""

from __future__ import annotations

import torch
from torch import Tensor

from softmax_bench.ops.dispatch import by_device
from softmax_bench.ops.rows import distinct, row_sparse

_CHUNK = 2**17
"""Numbers updated at once: what is computed on the way stays in a core's cache (0.6 of the time of
all rows at once for Adagrad and Adam, measured at 5,000 rows of 256)."""


@by_device
def sum_entries(values: Tensor, ids: Tensor, num_rows: int) -> Tensor:
    """The row-sparse gradient in which entry p adds ``values[p]`` to row ``ids[p]``."""
    rows, inverse = distinct(ids)
    sums = values.new_zeros(rows.shape[0], *values.shape[1:])
    return row_sparse(rows, sums.index_add_(0, inverse, values), num_rows)


@by_device
def merged(gradient: Tensor) -> Tensor:
    """The same row-sparse gradient with each row once."""
    return gradient if gradient.is_coalesced() else gradient.coalesce()


@by_device
def row_norm(values: Tensor, rows: Tensor) -> Tensor:
    """The 2-norm of the values of these rows."""
    return torch.linalg.vector_norm(values)


@by_device
def scale_rows_(values: Tensor, rows: Tensor, factor: Tensor) -> None:
    """Multiply the values of these rows by one number."""
    values.mul_(factor)


@by_device
def sgd(parameter: Tensor, rows: Tensor, values: Tensor, *, lr: float) -> None:
    """Stochastic gradient descent on distinct ``rows``, whose gradient is ``values``."""
    _add_rows(parameter, rows, values, -lr)


@by_device
def adagrad(
    parameter: Tensor, total: Tensor, rows: Tensor, values: Tensor, *, lr: float, eps: float
) -> None:
    """Adagrad, with sums of squares in ``total``."""
    for some, of_them in _chunks(rows, values):
        _add_rows(total, some, of_them * of_them, 1.0)
        root = total.index_select(0, some).sqrt_().add_(eps)
        _add_rows(parameter, some, torch.div(of_them, root, out=root), -lr)


@by_device
def adagrad_on_all(
    parameter: Tensor, total: Tensor, gradient: Tensor, *, lr: float, eps: float
) -> None:
    """Adagrad with a dense gradient."""
    total.addcmul_(gradient, gradient)
    parameter.addcdiv_(gradient, total.sqrt().add_(eps), value=-lr)


@by_device
def adam(
    parameter: Tensor,
    mean: Tensor,
    square: Tensor,
    rows: Tensor,
    values: Tensor,
    *,
    step: int,
    lr: float,
    eps: float,
    betas: tuple[float, float],
) -> None:
    """Lazy Adam, with its running means in ``mean`` and ``square``."""
    correction = [1 - beta**step for beta in betas]
    for some, of_them in _chunks(rows, values):
        moved = mean.index_select(0, some)
        change = (of_them - moved).mul_(1 - betas[0])
        _add_rows(mean, some, change, 1.0)
        moved += change
        root = square.index_select(0, some)
        change = torch.mul(of_them, of_them, out=change).sub_(root).mul_(1 - betas[1])
        _add_rows(square, some, change, 1.0)
        root += change
        root = root.div_(correction[1]).sqrt_().add_(eps)
        _add_rows(parameter, some, moved.div_(root), -lr / correction[0])


def _chunks(rows: Tensor, values: Tensor) -> zip[tuple[Tensor, Tensor]]:
    size = max(1, _CHUNK // max(1, values[:1].numel()))
    return zip(rows.split(size), values.split(size), strict=True)


def _add_rows(to: Tensor, rows: Tensor, values: Tensor, factor: float) -> None:
    """``to[rows] += factor * values``, for distinct sorted rows.

    As the sum with a sparse tensor, which torch makes on all threads; its ``index_add_`` uses one.
    """
    to.add_(row_sparse(rows, values, to.shape[0]), alpha=factor)
