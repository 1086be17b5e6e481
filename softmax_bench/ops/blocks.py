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
from softmax_bench.ops.cpu.block_batches import in_batches, occurring, slots, typical_counts
from softmax_bench.ops.cpu.exponentials import accumulator
from softmax_bench.ops.cpu.large_pages import empty_buffer
from softmax_bench.ops.cpu.workspace import workspace
from softmax_bench.ops.footprint import TOKEN_BYTES, Footprint, row_sparse_bytes
from softmax_bench.ops.gradients import Held
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
        (num_blocks, size, width), num_tokens = weight.shape, hidden.shape[0]
        block = row.div(size, rounding_mode="floor")
        in_order, order = block.sort()
        touched, counts = torch.unique_consecutive(in_order, return_counts=True)
        ids, batches = touched.tolist(), in_batches(counts.tolist(), size, width)
        source, sink = slots(order, counts, batches)
        member = (row - block * size).index_select(0, source)
        share = coefficient.index_select(0, source).masked_fill_(sink == num_tokens, 0)
        log_p = torch.empty_like(share, dtype=accumulator(hidden.dtype))
        minus_one = hidden.new_full((1, 1, 1), -1.0)
        offsets = _offsets(touched, weight, bias, num_rows).unsqueeze(1)
        with_gradient = needs_grad(ctx, 0, 1, 2)
        touched_rows = touched.shape[0] if with_gradient else 0
        grad_rows = empty_buffer((touched_rows, size, width), weight.dtype, weight.device)
        grad_offsets = torch.empty_like(offsets)
        grad_hidden = hidden.new_empty(num_tokens + 1, width)  # the last is of all empty slots
        lengths = [batch.slots for batch in batches]
        of_batch = (x.split(lengths) for x in (source, sink, member, share, log_p))
        for batch, from_, to, *of_slot in zip(batches, *of_batch, strict=True):
            member_, share_, log_p_ = (x.view(batch.blocks, -1, 1) for x in of_slot)
            h = hidden.index_select(0, from_).view(batch.blocks, -1, width)
            own = slice(batch.first, batch.first + batch.blocks)
            rows = _rows(weight, ids[own], touched[own])
            scores, grad_h = h.new_empty(*h.shape[:2], size), torch.empty_like(h)
            # All products into ``out``: autocast would make others in the lower type.
            torch.baddbmm(offsets[own], h, rows.transpose(1, 2), out=scores)
            all_log_p = scores.log_softmax(2, log_p.dtype)
            torch.gather(all_log_p, 2, member_, out=log_p_)
            if with_gradient:
                pulls = torch.exp(all_log_p, out=scores)
                pulls.scatter_add_(2, member_, minus_one.expand_as(member_)).mul_(share_)
                torch.bmm(pulls, rows, out=grad_h)
                grad_hidden.index_copy_(0, to, grad_h.view(-1, width))
                torch.bmm(pulls.transpose(1, 2), h, out=grad_rows[own])
                torch.sum(pulls, 1, keepdim=True, out=grad_offsets[own])
        if with_gradient:
            grad_bias = row_sparse(touched, grad_offsets.squeeze(1), num_blocks)
            ctx.held = Held(
                (
                    grad_hidden[:num_tokens],
                    row_sparse(touched, grad_rows, num_blocks),
                    None if bias is None else grad_bias,
                )
            )
        return torch.dot(log_p.neg_(), share.to(log_p.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.held.times(grad), None, None, None)


def _rows(weight: Tensor, ids: list[int], touched: Tensor) -> Tensor:
    """The blocks ``ids``, in place where they lie next to each other."""
    if ids[-1] - ids[0] == len(ids) - 1:
        return weight[ids[0] : ids[-1] + 1]
    buffer = workspace(len(ids) * weight[0].numel(), weight.dtype, weight.device)
    shape = (len(ids), *weight.shape[1:])
    return torch.index_select(weight, 0, touched, out=buffer.view(shape))


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
