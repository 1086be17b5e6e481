"""Scores of each token against one block of consecutive rows: two-level softmax's inner level.

Tokens of the same block share one dense product. The gradient of the weight is coalesced and
contains only the blocks of the step. Most blocks serve a token or two, so memory determines the
time: each row of a block is read once, and its gradient is written once.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softmax_bench.ops.autograd import (
    Gradients,
    Wanted,
    fused_loss,
    no_second_derivative,
    weighted_loss,
)
from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.cpu import blocks
from softmax_bench.ops.embedding import embed_rows


@untraced
def block_cross_entropy(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "C B H"],
    bias: Float[Tensor, "C B"] | None,
    row: Int[Tensor, "N"],
    coefficient: Float[Tensor, "N"],
    num_rows: int,
) -> Float[Tensor, ""]:
    """``sum_n coefficient_n (-log softmax(scores of the block that holds row_n)[row_n])``.

    Loss and gradients are computed together, block by block, so that its rows are in cache for all
    three products. Each call waits once for the device, to learn which blocks occur.

    Args:
        hidden: Hidden states.
        weight: ``C`` blocks of rows; its gradient is sparse in the first dimension.
        bias: One offset per row.
        row: The row that each token should choose, counted through all blocks.
        coefficient: Weight of each token in the sum.
        num_rows: Number of actual rows; those after them only pad the last block.
    """

    def loss(shares: Tensor) -> Tensor:
        def run(wanted: Wanted, h: Tensor, w: Tensor, b: Tensor | None) -> tuple[Tensor, Gradients]:
            operands = h, w, b, row, shares, num_rows
            return blocks.block_cross_entropy(*operands, with_gradients=any(wanted))

        return fused_loss(run, hidden.to(weight.dtype), weight, bias)

    return weighted_loss(loss, coefficient, weight.dtype)


def block_scores(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "C B H"],
    bias: Float[Tensor, "C B"] | None,
    block: Int[Tensor, "N"],
) -> Float[Tensor, "N B"]:
    """Scores of every token against the ``B`` rows of its own block.

    Each call waits once for the device, to learn which blocks occur and so the products' sizes.

    Args:
        hidden: Hidden states.
        weight: ``C`` blocks of rows; its gradient is sparse in the first dimension.
        bias: One offset per row.
        block: The block of each token.
    """
    # In the weight's dtype: a lower one would have to convert all the rows that it touches.
    scores: Tensor = _BlockScores.apply(hidden.to(weight.dtype), weight, block)
    return scores if bias is None else scores + embed_rows(bias, block)


@no_second_derivative
class _BlockScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, block: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, block)
        return blocks.block_scores(hidden, weight, block)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*blocks.block_score_gradients(grad, *ctx.saved_tensors), None)
