"""Row-sparse gradients as optimisers need them, and one step of each optimiser on their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from softmax_bench.ops.cpu.scaling import scale_
from softmax_bench.ops.dispatch import by_device
from softmax_bench.ops.rows import distinct, row_sparse

_CHUNK = 2**20
"""Bytes of a table updated at once: few enough for the cores' caches, and more than 2^15 numbers of
16 bytes, up to which torch moves rows on a single thread.
"""


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
    scale_(values, factor)


@by_device
def sgd(parameter: Tensor, rows: Tensor | None, values: Tensor, *, lr: float) -> None:
    """Stochastic gradient descent on distinct ``rows``, or all, whose gradient is ``values``."""
    # As a sum with a sparse tensor, which torch computes on all threads; ``index_add_`` uses one.
    gradient = values if rows is None else row_sparse(rows, values, parameter.shape[0])
    parameter.add_(gradient, alpha=-lr)


@by_device
def adagrad(
    parameter: Tensor, total: Tensor, rows: Tensor | None, values: Tensor, *, lr: float, eps: float
) -> None:
    """Adagrad, with sums of squares in ``total``."""
    for (some, sums), gradient in _gathered((parameter, total), rows, values):
        if parameter.device.type == "cpu":
            torch._fused_adagrad_(
                [some], [gradient], [sums], [torch.ones(())],
                lr=lr, lr_decay=0.0, weight_decay=0.0, eps=eps, maximize=False,
            )  # fmt: skip
        else:  # torch has no such kernel
            sums.addcmul_(gradient, gradient)
            some.addcdiv_(gradient, sums.sqrt().add_(eps), value=-lr)


@by_device
def adam(
    parameter: Tensor,
    mean: Tensor,
    square: Tensor,
    rows: Tensor | None,
    values: Tensor,
    *,
    step: int | Tensor,
    lr: float,
    eps: float,
    betas: tuple[float, float],
    weight_decay: float = 0.0,
) -> None:
    """Adam, lazy where there are rows, or AdamW, with running means in ``mean`` and ``square``."""
    steps = torch.as_tensor(step, dtype=torch.float32, device=parameter.device)
    for (some, m, v), gradient in _gathered((parameter, mean, square), rows, values):
        torch._fused_adamw_(
            [some], [gradient], [m], [v], [], [steps], lr=lr, beta1=betas[0], beta2=betas[1],
            eps=eps, weight_decay=weight_decay, amsgrad=False, maximize=False,
        )  # fmt: skip


def _gathered(
    tables: Sequence[Tensor], rows: Tensor | None, values: Tensor
) -> Iterator[tuple[Sequence[Tensor], Tensor]]:
    """Yield these rows of the tables with their gradient, some at a time, and write them back."""
    if rows is None:
        yield tables, values
        return
    wide = [_in_wide_numbers(table) for table in tables]
    size = max(1, _CHUNK // max(1, values[:1].nbytes))
    for some, gradient in zip(rows.split(size), values.contiguous().split(size), strict=True):
        taken = [table.index_select(0, some) for table in wide]
        yield [x.view(table.dtype) for x, table in zip(taken, tables, strict=True)], gradient
        for table, changed in zip(wide, taken, strict=True):
            table.index_copy_(0, some, changed)


def _in_wide_numbers(table: Tensor) -> Tensor:
    """The same memory as numbers of 16 bytes, because torch moves rows number by number."""
    size = table.element_size()
    fits = table.dim() > 1 and table.is_contiguous() and table.shape[-1] * size % 16 == 0
    if fits and table.storage_offset() * size % 16 == 0:
        return table.view(torch.complex128)
    return table
