"""Rows of a table by id, with a gradient that contains only the requested rows."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softmax_bench.ops.autograd import no_second_derivative
from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.cpu.updates import sum_entries


@no_second_derivative
class _EmbedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor) -> Tensor:
        ctx.num_rows = weight.shape[0]
        ctx.save_for_backward(ids)
        return weight.index_select(0, ids.reshape(-1)).view(*ids.shape, *weight.shape[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (ids,) = ctx.saved_tensors
        values = grad.reshape(-1, *grad.shape[ids.dim() :])
        return sum_entries(values, ids.reshape(-1), ctx.num_rows), None


@untraced
def embed_rows(
    weight: Float[Tensor, "V *row"], ids: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch *row"]:
    """Rows of ``weight`` by id, with a coalesced row-sparse gradient.

    ``torch.nn.Embedding(sparse=True)`` gives one gradient row per *token*; this gives one per
    distinct id, as clipping and the optimisers need.
    """
    embedded: Tensor = _EmbedRows.apply(weight, ids)
    return embedded
