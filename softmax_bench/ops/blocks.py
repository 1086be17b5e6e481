"""Scores of each token against one block of consecutive rows: two-level softmax's inner level.

Tokens of the same block share one dense product. The gradient of the weight has the blocks of the
step only, and is coalesced. Most blocks serve a token or two, so it is memory that sets the time:
each row of a block is read, and its gradient written, once.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from softmax_bench.ops.autograd import Gradients, Wanted, fused_loss
from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.cpu import blocks
from softmax_bench.ops.cpu.block_batches import in_batches, occurring, typical_counts
from softmax_bench.ops.embedding import embed_rows
from softmax_bench.ops.footprint import TOKEN_BYTES, Footprint, row_sparse_bytes


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

    Loss and gradients are made together, block by block: its rows are in cache for all three
    products. Which blocks occur is asked of the device once a call.

    Args:
        hidden: Hidden states.
        weight: ``C`` blocks of rows; its gradient is sparse in the first dimension.
        bias: One offset a row.
        row: The row that each token should choose, counted through all blocks.
        coefficient: Weight of each token in the sum.
        num_rows: Rows that there are: those after them only fill the last block.
    """

    def run(wanted: Wanted, h: Tensor, w: Tensor, b: Tensor | None) -> tuple[Tensor, Gradients]:
        operands = h, w, b, row, coefficient, num_rows
        return blocks.block_cross_entropy(*operands, with_gradients=any(wanted))

    return fused_loss(run, hidden.to(weight.dtype), weight, bias)


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
        ctx.save_for_backward(hidden, weight, block)
        return blocks.block_scores(hidden, weight, block)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*blocks.block_score_gradients(grad, *ctx.saved_tensors), None)


def block_footprint(
    num_tokens: int,
    shares: Float[Tensor, "C"],
    block_size: int,
    width: int,
    size: int,
    *,
    bias: bool,
) -> Footprint:
    """Bytes of :func:`block_cross_entropy`.

    Args:
        num_tokens: N.
        shares: Of the tokens, of each block in the mean.
        block_size: B.
        width: H.
        size: Bytes of a number.
        bias: Whether there is one.
    """
    counts = typical_counts(num_tokens, shares)
    touched = float(occurring(num_tokens, shares).sum())
    batches = in_batches(counts, block_size, width)
    largest = max((batch.slots for batch in batches), default=0)
    gathered = max((batch.blocks for batch in batches if batch.blocks > 1), default=0)
    slots = sum(batch.slots for batch in batches)
    states = num_tokens * width * size
    gradients = row_sparse_bytes(touched, block_size * width, size, bias=False)
    gradients += row_sparse_bytes(touched, block_size, size, bias=False) * bias
    # Of a batch: hidden states and their gradient, scores, and these after the softmax.
    beside = largest * (2 * width + 2 * block_size) * size + touched * block_size * size
    beside += _SLOT_BYTES * slots + TOKEN_BYTES * num_tokens
    return Footprint(
        forward=gradients + states + beside,
        kept=gradients + states,
        backward=gradients + states,
        gradients=gradients,
        hidden=states,
        workspace=gathered * block_size * width * size,
    )


_SLOT_BYTES = 32
"""Of a slot beside its batch's: token, row of its gradient, member, weight, log probability."""


def block_scores_bytes(num_tokens: int, block_size: int, width: int, size: int) -> int:
    """Most bytes of :func:`block_scores` without a gradient: states and scores, in two orders."""
    return num_tokens * size * (width + 2 * block_size)
