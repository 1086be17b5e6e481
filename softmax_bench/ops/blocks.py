"""Scores of each token against one block of consecutive rows: two-level softmax's inner level.

Tokens of the same block share one dense product. The gradient of the weight has the blocks of the
step only, and is coalesced. Most blocks serve a token or two, so it is memory that sets the time:
each row of a block is read, and its gradient written, once.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from softmax_bench.ops.workspace import workspace


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
        block = row.div(size, rounding_mode="floor")
        touched, place, counts = torch.unique(block, return_inverse=True, return_counts=True)
        ids, batches = touched.tolist(), _batches(counts.tolist(), size * width)
        slot, token, used = _slots(place, counts, batches)
        offsets = _offsets(touched, weight, bias, num_rows).unsqueeze(1)
        h = hidden.index_select(0, token)
        member = (row - block * size).index_select(0, token).unsqueeze(1)
        share = (coefficient.index_select(0, token) * used).unsqueeze(1)
        log_p = torch.empty_like(share, dtype=accumulator(h.dtype))
        with_gradient = needs_grad(ctx, 0, 1, 2)
        grad_h, grad_offsets = torch.empty_like(h), torch.empty_like(offsets)
        touched_rows = touched.shape[0] if with_gradient else 0
        grad_rows = empty_buffer((touched_rows, size, width), weight.dtype, weight.device)
        minus_one = h.new_full((1, 1, 1), -1.0)
        of_batch = (x.split([b.slots for b in batches]) for x in (h, member, share, log_p, grad_h))
        for batch, *parts in zip(batches, *of_batch, strict=True):
            shape = (batch.blocks, batch.tokens, -1)
            h_, member_, share_, log_p_, grad_h_ = (x.view(shape) for x in parts)
            own = slice(batch.first, batch.first + batch.blocks)
            rows = _rows(weight, ids[own], touched[own])
            scores = torch.baddbmm(offsets[own], h_, rows.transpose(1, 2))
            all_log_p = scores.log_softmax(2, log_p.dtype)
            torch.gather(all_log_p, 2, member_, out=log_p_)
            if with_gradient:
                pulls = torch.exp(all_log_p, out=scores)
                pulls.scatter_add_(2, member_, minus_one.expand_as(member_)).mul_(share_)
                torch.bmm(pulls, rows, out=grad_h_)
                torch.bmm(pulls.transpose(1, 2), h_, out=grad_rows[own])
                torch.sum(pulls, 1, keepdim=True, out=grad_offsets[own])
        if with_gradient:
            ctx.held = Held(
                (
                    grad_h.index_select(0, slot),
                    row_sparse(touched, grad_rows, num_blocks),
                    None if bias is None else row_sparse(touched, grad_offsets.squeeze(1), num_blocks),
                )
            )
        return torch.dot(log_p.squeeze(1).neg(), share.squeeze(1).to(log_p.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.held.times(grad), None, None, None)


@dataclass(frozen=True)
class _Batch:
    """Blocks, next to each other among those touched, that are multiplied at once."""

    first: int
    """Position of the first among the blocks touched."""
    blocks: int
    tokens: int
    """Slots of each of its blocks: tokens of the one that has most."""

    @property
    def slots(self) -> int:
        return self.blocks * self.tokens


_IN_CACHE = 2**19
"""Numbers in the blocks of a batch: rows that were gathered are still in cache when used again."""


def _batches(counts: list[int], block_numel: int) -> list[_Batch]:
    """Consecutive blocks in batches, with fewer empty slots than tokens in each.

    Args:
        counts: Tokens of each block touched.
        block_numel: Numbers in the rows of a block.
    """
    batches: list[_Batch] = []
    most = max(1, _IN_CACHE // block_numel)
    first = tokens = total = 0
    for position, count in enumerate(counts):
        blocks = position - first
        if blocks == most or (blocks + 1) * max(tokens, count) > 2 * (total + count):
            batches.append(_Batch(first, blocks, tokens))
            first, tokens, total = position, 0, 0
        tokens, total = max(tokens, count), total + count
    if counts:
        batches.append(_Batch(first, len(counts) - first, tokens))
    return batches


def _slots(
    place: Tensor, counts: Tensor, batches: list[_Batch]
) -> tuple[Tensor, Tensor, Tensor]:
    """The slot of each token; and of each slot its token, and whether it is in use.

    The slots of a block lie together. Those not in use repeat its first token.
    """
    tokens = [batch.tokens for batch in batches for _ in range(batch.blocks)]
    lengths = torch.tensor(tokens, dtype=torch.int64, device=place.device)
    num_slots = sum(tokens)
    by_block, order = place.sort()
    first = counts.cumsum(0) - counts
    shift = lengths.cumsum(0) - lengths - first
    position = torch.arange(place.shape[0], device=place.device)
    in_order = position + shift.index_select(0, by_block)
    token = order.index_select(0, first).repeat_interleave(lengths, output_size=num_slots)
    token.index_copy_(0, in_order, order)
    used = torch.zeros_like(token, dtype=torch.bool).index_fill_(0, in_order, True)
    return torch.empty_like(order).index_copy_(0, order, in_order), token, used


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
