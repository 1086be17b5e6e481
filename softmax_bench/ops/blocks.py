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
from torch.nn import functional as F

from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.exponentials import accumulator
from softmax_bench.ops.footprint import TOKEN_BYTES, Amount, Footprint, row_sparse_bytes
from softmax_bench.ops.gradients import Held
from softmax_bench.ops.large_pages import empty_buffer
from softmax_bench.ops.rows import embed_rows, needs_grad, row_sparse


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
    operands = hidden.to(weight.dtype), weight, bias
    loss: Tensor = _BlockCrossEntropy.apply(*operands, row, coefficient, num_rows)
    return loss


class _BlockCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        row: Tensor,
        coefficient: Tensor,
        num_rows: int,
    ) -> Tensor:
        num_blocks, size, width = weight.shape
        row, order = row.sort()
        block = row.div(size, rounding_mode="floor")
        touched, place, counts = torch.unique_consecutive(
            block, return_inverse=True, return_counts=True
        )
        offsets = _offsets(touched, weight, bias, num_rows)
        h, share = hidden.index_select(0, order), coefficient.index_select(0, order)
        shared = h * share.to(h.dtype).unsqueeze(1)
        p = h.new_empty(h.shape[0], size)
        log_p = torch.empty_like(p, dtype=accumulator(p.dtype))
        grad_h = torch.empty_like(h)
        with_gradient = needs_grad(ctx, 0, 1, 2)
        touched_rows = touched.shape[0] if with_gradient else 0
        grad_rows = empty_buffer((touched_rows, size, width), weight.dtype, weight.device)
        of_block = (x.split(counts.tolist()) for x in (h, shared, p, log_p, grad_h))
        parts = zip(touched.tolist(), offsets, *of_block, strict=True)
        for number, (index, offset, h_, shared_, p_, log_p_, grad_h_) in enumerate(parts):
            rows = weight[index]
            torch.addmm(offset, h_, rows.t(), out=p_)
            torch.log_softmax(p_, 1, log_p.dtype, out=log_p_)
            if with_gradient:
                torch.exp(log_p_, out=p_)
                torch.mm(p_, rows, out=grad_h_)
                torch.mm(p_.t(), shared_, out=grad_rows[number])
        member = (row - block * size).unsqueeze(1)
        if with_gradient:
            share = share.to(h.dtype).unsqueeze(1)
            grad_h.sub_(weight.view(-1, width).index_select(0, row)).mul_(share)
            chosen = place * size + member.squeeze(1)
            grad_rows.view(-1, width).index_add_(0, chosen, shared, alpha=-1)
            grad_bias = None
            if bias is not None:
                pulls = p.scatter_add_(1, member, p.new_full((), -1.0).expand_as(member))
                sums = torch.zeros_like(offsets).index_add_(0, place, pulls.mul_(share))
                grad_bias = row_sparse(touched, sums, num_blocks)
            grad_hidden = torch.empty_like(hidden).index_copy_(0, order, grad_h)
            ctx.held = Held((grad_hidden, row_sparse(touched, grad_rows, num_blocks), grad_bias))
        losses = log_p.gather(1, member).squeeze(1).neg()
        return torch.dot(losses, coefficient.index_select(0, order).to(losses.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.held.times(grad), None, None, None)


def _offsets(touched: Tensor, weight: Tensor, bias: Tensor | None, num_rows: int) -> Tensor:
    """Offsets of the rows of the blocks ``touched``: -inf where there is no row."""
    num_blocks, size = weight.shape[:2]
    if bias is None:
        offsets = weight.new_zeros(touched.shape[0], size)
    else:
        offsets = bias.index_select(0, touched)
    column = torch.arange(size, device=touched.device)
    absent = touched.unsqueeze(1) * size + column >= num_rows
    return offsets.masked_fill_(absent, -torch.inf) if num_rows < num_blocks * size else offsets


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


def block_footprint(
    num_tokens: int, blocks: Amount, block_size: int, width: int, size: int, *, bias: bool
) -> Footprint:
    """Bytes of :func:`block_cross_entropy`.

    Args:
        num_tokens: N.
        blocks: Distinct blocks that the tokens want rows of.
        block_size: B.
        width: H.
        size: Bytes of a number.
        bias: Whether there is one.
    """
    states = num_tokens * width * size
    gradients = row_sparse_bytes(blocks, block_size * width, size, bias=False)
    gradients += row_sparse_bytes(blocks, block_size, size, bias=False) * bias
    scores = num_tokens * block_size * size
    # In order of blocks: hidden states, these weighted, their gradient; and that in the old order.
    beside = 3 * states + 2 * scores + blocks * block_size * size + TOKEN_BYTES * num_tokens
    return Footprint(
        forward=gradients + states + beside,
        kept=gradients + states,
        backward=gradients + states,
        gradients=gradients,
        hidden=states,
    )


def block_scores_bytes(num_tokens: int, block_size: int, width: int, size: int) -> int:
    """Most bytes of :func:`block_scores` without a gradient: states and scores, in two orders."""
    return num_tokens * size * (width + 2 * block_size)
