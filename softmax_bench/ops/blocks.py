"""Scores of each token against one block of consecutive rows: two-level softmax's inner level.

Tokens of the same block share one dense product. The gradient of the weight has the blocks of the
step only, and is coalesced.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from softmax_bench.ops.exponentials import accumulator
from softmax_bench.ops.rows import embed_rows, row_sparse


def block_scores(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "C B H"],
    bias: Float[Tensor, "C B"] | None,
    block: Int[Tensor, "N"],
) -> Float[Tensor, "N B"]:
    """Scores of every token against the ``B`` rows of its own block.

    Which blocks occur is asked of the device once a call: the products' sizes depend on it.

    Args:
        hidden: Hidden states.
        weight: ``C`` blocks of rows; its gradient is sparse in the first dimension.
        bias: One offset a row.
        block: The block of each token.
    """
    # In the weight's type: a lower one would have to convert all the rows that it touches.
    scores: Tensor = _BlockScores.apply(hidden.to(weight.dtype), weight, block)
    return scores if bias is None else scores + embed_rows(bias, block)


class _BlockScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, block: Tensor) -> Tensor:
        order = block.argsort(stable=True)
        touched, counts = torch.unique_consecutive(block[order], return_counts=True)
        ends = F.pad(counts.cumsum(0), (1, 0)).tolist()
        ctx.groups = list(zip(touched.tolist(), ends[:-1], ends[1:], strict=True))
        ctx.save_for_backward(hidden, weight, order, touched)
        in_order = hidden.index_select(0, order)
        scores = hidden.new_empty(hidden.shape[0], weight.shape[1])
        for index, start, end in ctx.groups:
            torch.mm(in_order[start:end], weight[index].t(), out=scores[start:end])
        result = torch.empty_like(scores).index_copy_(0, order, scores)
        return result.to(accumulator(hidden.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden, weight, order, touched = ctx.saved_tensors
        in_order = hidden.index_select(0, order)
        pulls = grad.to(hidden.dtype).index_select(0, order)
        grad_hidden = torch.empty_like(in_order)
        grad_blocks = weight.new_empty(touched.shape[0], *weight.shape[1:])
        for position, (index, start, end) in enumerate(ctx.groups):
            torch.mm(pulls[start:end], weight[index], out=grad_hidden[start:end])
            torch.mm(pulls[start:end].t(), in_order[start:end], out=grad_blocks[position])
        grad_hidden = torch.empty_like(hidden).index_copy_(0, order, grad_hidden)
        return grad_hidden, row_sparse(touched, grad_blocks, weight.shape[0]), None
