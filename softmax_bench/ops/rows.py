"""Row-sparse gradients: how a step on a million classes avoids work in proportion to them.

A layer that touches few rows of its ``(V, H)`` weight must not create a dense gradient: filling,
clipping and applying ``V x H`` zeros costs more than the layer itself. These helpers build
*coalesced* sparse gradients (distinct, sorted rows), because an optimiser that must coalesce them
does so on one thread, which again costs more than the layer.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor


def distinct(ids: Int[Tensor, "n"]) -> tuple[Int[Tensor, "u"], Int[Tensor, "n"]]:
    """Sorted distinct ids, and for every id its position among them."""
    rows, inverse = torch.unique(ids, sorted=True, return_inverse=True)
    return rows, inverse


def row_sparse(rows: Int[Tensor, "u"], values: Tensor, num_rows: int) -> Tensor:
    """A coalesced sparse tensor: ``values`` in ``rows`` (distinct, sorted), zero elsewhere."""
    return torch.sparse_coo_tensor(
        rows.unsqueeze(0),
        values,
        (num_rows, *values.shape[1:]),
        is_coalesced=True,
        check_invariants=False,
    )


class _DenseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor) -> Tensor:
        return parameter.view_as(parameter)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        if not grad.is_sparse:
            return grad
        dense = grad.new_zeros(grad.shape, layout=torch.strided)
        return dense.index_add_(0, grad._indices()[0], grad._values())


def dense_gradient(parameter: Tensor) -> Tensor:
    """The same numbers, whose gradient reaches the parameter as dense even if it is row-sparse."""
    seen: Tensor = _DenseGradient.apply(parameter)
    return seen


def keep_coalesced(parameter: Tensor) -> None:
    """Let ``parameter.grad`` keep the coalesced flag that torch drops when it stores a gradient.

    Without it, every optimiser and every clipping would sort and sum rows that are already sorted
    and distinct. If two gradients were added (tied weights), the flag stays off.
    """

    def mark(stored: Tensor) -> None:
        grad = stored.grad
        if grad is None or not grad.is_sparse or grad.is_coalesced() or grad.is_cuda:
            return  # on CUDA, checking the rows would stall the queue
        rows = grad._indices()[0]
        if bool((rows[1:] > rows[:-1]).all()):
            grad._coalesced_(True)

    parameter.register_post_accumulate_grad_hook(mark)
