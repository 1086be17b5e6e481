"""Losses and scores of tokens against blocks of rows, by batched products of blocks in cache."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.ops.autograd import Gradients
from softmax_bench.ops.cpu.block_batches import in_batches, slots
from softmax_bench.ops.cpu.exponentials import accumulator
from softmax_bench.ops.cpu.large_pages import empty_buffer
from softmax_bench.ops.cpu.workspace import workspace
from softmax_bench.ops.dispatch import by_device
from softmax_bench.ops.rows import row_sparse


@by_device
def block_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    row: Tensor,
    coefficient: Tensor,
    num_rows: int,
    *,
    with_gradients: bool,
) -> tuple[Tensor, Gradients]:
    """Loss, and its gradients in ``hidden``, ``weight`` and ``bias`` if needed."""
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
    touched_rows = touched.shape[0] if with_gradients else 0
    grad_rows = empty_buffer((touched_rows, size, width), weight.dtype, weight.device)
    grad_offsets = torch.empty_like(offsets)
    grad_hidden = hidden.new_empty(num_tokens + 1, width)  # the last one stands for all empty slots
    lengths = [batch.slots for batch in batches]
    of_batch = (x.split(lengths) for x in (source, sink, member, share, log_p))
    for batch, from_, to, *of_slot in zip(batches, *of_batch, strict=True):
        member_, share_, log_p_ = (x.view(batch.blocks, -1, 1) for x in of_slot)
        h = hidden.index_select(0, from_).view(batch.blocks, -1, width)
        own = slice(batch.first, batch.first + batch.blocks)
        rows = _rows(weight, ids[own], touched[own])
        scores, grad_h = h.new_empty(*h.shape[:2], size), torch.empty_like(h)
        # Write all products into ``out``, since autocast would compute others in the lower dtype.
        torch.baddbmm(offsets[own], h, rows.transpose(1, 2), out=scores)
        all_log_p = scores.log_softmax(2, log_p.dtype)
        torch.gather(all_log_p, 2, member_, out=log_p_)
        if with_gradients:
            pulls = torch.exp(all_log_p, out=scores)
            pulls.scatter_add_(2, member_, minus_one.expand_as(member_)).mul_(share_)
            torch.bmm(pulls, rows, out=grad_h)
            grad_hidden.index_copy_(0, to, grad_h.view(-1, width))
            torch.bmm(pulls.transpose(1, 2), h, out=grad_rows[own])
            torch.sum(pulls, 1, keepdim=True, out=grad_offsets[own])
    loss = torch.dot(log_p.neg_(), share.to(log_p.dtype))
    if not with_gradients:
        return loss, (None, None, None)
    grad_bias = row_sparse(touched, grad_offsets.squeeze(1), num_blocks)
    return loss, (
        grad_hidden[:num_tokens],
        row_sparse(touched, grad_rows, num_blocks),
        None if bias is None else grad_bias,
    )


def _rows(weight: Tensor, ids: list[int], touched: Tensor) -> Tensor:
    """The blocks ``ids``, without a copy if they are adjacent."""
    if ids[-1] - ids[0] == len(ids) - 1:
        return weight[ids[0] : ids[-1] + 1]
    buffer = workspace(len(ids) * weight[0].numel(), weight.dtype, weight.device)
    shape = (len(ids), *weight.shape[1:])
    return torch.index_select(weight, 0, touched, out=buffer.view(shape))


def _offsets(touched: Tensor, weight: Tensor, bias: Tensor | None, num_rows: int) -> Tensor:
    """Offsets of the rows of the blocks ``touched``: -inf if there is no row."""
    num_blocks, size = weight.shape[:2]
    if bias is None:
        offsets = weight.new_zeros(touched.shape[0], size)
    else:
        offsets = bias.index_select(0, touched)
    column = torch.arange(size, device=touched.device)
    absent = touched.unsqueeze(1) * size + column >= num_rows
    return offsets.masked_fill_(absent, -torch.inf) if num_rows < num_blocks * size else offsets


@by_device
def block_scores(hidden: Tensor, weight: Tensor, block: Tensor) -> Tensor:
    """Scores (N, B) of each token against the rows of its block."""
    (_, size, width), num_tokens = weight.shape, hidden.shape[0]
    order = block.argsort(stable=True)
    touched, counts = torch.unique_consecutive(block[order], return_counts=True)
    ids, batches = touched.tolist(), in_batches(counts.tolist(), size, width)
    lengths = [batch.slots for batch in batches]
    of_batch = (x.split(lengths) for x in slots(order, counts, batches))
    scores = hidden.new_empty(num_tokens + 1, size)  # the last is of all empty slots
    for batch, from_, to in zip(batches, *of_batch, strict=True):
        own = slice(batch.first, batch.first + batch.blocks)
        h = hidden.index_select(0, from_).view(batch.blocks, -1, width)
        products = h.new_empty(batch.blocks, batch.tokens, size)
        torch.bmm(h, _rows(weight, ids[own], touched[own]).transpose(1, 2), out=products)
        scores.index_copy_(0, to, products.view(-1, size))
    return scores[:num_tokens].to(accumulator(hidden.dtype))


@by_device
def block_score_gradients(
    grad: Tensor, hidden: Tensor, weight: Tensor, block: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients in hidden states and weight, given that in the scores ``grad`` (N, B)."""
    in_order, order, touched, groups = _groups(hidden, block)
    pulls = grad.to(hidden.dtype).index_select(0, order)
    grad_hidden = torch.empty_like(in_order)
    grad_blocks = weight.new_empty(touched.shape[0], *weight.shape[1:])
    for position, (index, start, end) in enumerate(groups):
        torch.mm(pulls[start:end], weight[index], out=grad_hidden[start:end])
        torch.mm(pulls[start:end].t(), in_order[start:end], out=grad_blocks[position])
    grad_hidden = torch.empty_like(hidden).index_copy_(0, order, grad_hidden)
    return grad_hidden, row_sparse(touched, grad_blocks, weight.shape[0])


def _groups(
    hidden: Tensor, block: Tensor
) -> tuple[Tensor, Tensor, Tensor, list[tuple[int, int, int]]]:
    """Hidden states sorted by block, that order, the blocks, and the start of each."""
    order = block.argsort(stable=True)
    touched, counts = torch.unique_consecutive(block[order], return_counts=True)
    ends = F.pad(counts.cumsum(0), (1, 0)).tolist()
    groups = list(zip(touched.tolist(), ends[:-1], ends[1:], strict=True))
    return hidden.index_select(0, order), order, touched, groups
