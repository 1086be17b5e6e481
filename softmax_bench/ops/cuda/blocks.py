"""Tokens against the rows of their own block: products grouped by block, without a host sync.

Tokens are sorted by block and cut into tiles of at most :data:`TILE`, none of which spans two
blocks. Only the device knows how many tiles there are; there are at most N / TILE plus one per
block, and programs beyond the last have nothing to do.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from softmax_bench.ops.autograd import Gradients
from softmax_bench.ops.cpu import blocks as plain
from softmax_bench.ops.cuda.launch import block_of, precision, sums_of
from softmax_bench.ops.cuda.rows import distinct_rows, sum_rows, with_count

TILE = 16
"""Tokens per tile: the fewest that tensor cores multiply at once."""


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
    num_blocks, size = weight.shape[:2]
    block = row.div(size, rounding_mode="floor").clamp(0, num_blocks - 1)
    scores = block_scores(hidden, weight, block)
    if bias is not None:
        scores += bias.index_select(0, block)
    column = torch.arange(size, device=row.device)
    absent = block.unsqueeze(1) * size + column >= num_rows
    log_p = scores.masked_fill_(absent, -torch.inf).log_softmax(1)
    member = (row - block * size).clamp(0, size - 1).unsqueeze(1)
    share = coefficient.to(log_p.dtype)
    loss = -torch.dot(log_p.gather(1, member).squeeze(1), share)
    if not with_gradients:
        return loss, (None, None, None)
    pulls = log_p.exp_()
    pulls.scatter_add_(1, member, torch.full_like(log_p[:, :1], -1.0)).mul_(share.unsqueeze(1))
    grad_hidden, grad_weight = block_score_gradients(pulls, hidden, weight, block)
    if bias is None:
        return loss, (grad_hidden, grad_weight, None)
    grad_bias = sum_rows(distinct_rows(block, num_blocks), pulls.to(bias.dtype), num_blocks)
    return loss, (grad_hidden, grad_weight, grad_bias)


def block_scores(hidden: Tensor, weight: Tensor, block: Tensor) -> Tensor:
    """Scores (N, B) of each token against the rows of its block."""
    (num_blocks, size, width), tokens = weight.shape, hidden.shape[0]
    if hidden.dtype == torch.float64:  # few GPUs' tensor cores support it, and Triton does not
        return inspect.unwrap(plain.block_scores)(hidden, weight, block)
    scores = torch.zeros(tokens, size, dtype=sums_of(hidden), device=hidden.device)
    if not tokens:
        return scores
    tiles, columns = _tiles(block, num_blocks), max(16, min(64, block_of(size)))
    _scores[(tiles.block.shape[0], triton.cdiv(size, columns))](
        hidden.contiguous(), weight.contiguous(), scores, tiles.order, tiles.block, tiles.first,
        tiles.ends, num_blocks, size, width, TILE, columns, 32, precision(hidden), num_warps=4,
    )  # fmt: skip
    return scores


def block_score_gradients(
    grad: Tensor, hidden: Tensor, weight: Tensor, block: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients in hidden states and weight, given that in the scores ``grad`` (N, B)."""
    (num_blocks, size, width), tokens = weight.shape, hidden.shape[0]
    if hidden.dtype == torch.float64:
        return inspect.unwrap(plain.block_score_gradients)(grad, hidden, weight, block)
    grad, hidden = grad.to(hidden.dtype).contiguous(), hidden.contiguous()
    grad_hidden = torch.zeros_like(hidden)
    rows = distinct_rows(block, num_blocks)
    grad_blocks = weight.new_empty(rows.ids.shape[0], size, width)
    if tokens:
        tiles = _tiles(block, num_blocks)
        wide, long = max(16, min(64, block_of(width))), max(16, min(64, block_of(size)))
        _pull_hidden[(tiles.block.shape[0], triton.cdiv(width, wide))](
            grad, weight.contiguous(), grad_hidden, tiles.order, tiles.block, tiles.first,
            tiles.ends, num_blocks, size, width, TILE, wide, 32, precision(hidden), num_warps=4,
        )  # fmt: skip
        _pull_blocks[(rows.ids.shape[0], triton.cdiv(size, long), triton.cdiv(width, wide))](
            grad, hidden, grad_blocks, tiles.order, rows.ids, rows.count, tiles.ends,
            size, width, TILE, long, wide, precision(hidden), num_warps=4,
        )  # fmt: skip
    return grad_hidden, with_count(rows.ids, grad_blocks, num_blocks, rows.count)


@dataclass(frozen=True)
class _Tiles:
    order: Tensor
    """(N,) tokens sorted by block."""
    ends: Tensor
    """(C,) the end of each block's tokens in that order."""
    block: Tensor
    """(T,) the block of each tile; C for tiles that do not exist."""
    first: Tensor
    """(T,) the start of each tile in the order of tokens."""


def _tiles(block: Tensor, num_blocks: int) -> _Tiles:
    tokens = block.shape[0]
    in_order, order = torch.sort(block, stable=True)
    ids = torch.arange(num_blocks, device=block.device)
    ends = torch.searchsorted(in_order, ids, right=True)
    counts = torch.diff(ends, prepend=ends.new_zeros(1))
    tile_ends = ((counts + TILE - 1) // TILE).cumsum(0)
    tile = torch.arange(tokens // TILE + min(tokens, num_blocks), device=block.device)
    of_tile = torch.searchsorted(tile_ends, tile, right=True)
    known = of_tile.clamp(max=num_blocks - 1)
    behind = tile_ends.index_select(0, known) - tile  # tiles up to and including this block
    last = (counts.index_select(0, known) + TILE - 1) // TILE
    first = (ends - counts).index_select(0, known) + (last - behind) * TILE
    return _Tiles(order, ends, of_tile, first)


@triton.jit
def _scores(
    HIDDEN, WEIGHT, SCORES, ORDER, BLOCKS, FIRST, ENDS, num_blocks, size, width,
    TILE: tl.constexpr, COLUMNS: tl.constexpr, DEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores of a tile of tokens against some rows of their block."""
    block = tl.load(BLOCKS + tl.program_id(0)).to(tl.int64)
    if block < num_blocks:
        place = tl.load(FIRST + tl.program_id(0)) + tl.arange(0, TILE)
        there = place < tl.load(ENDS + block)
        token = tl.load(ORDER + place, mask=there, other=0)
        row = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        total = tl.zeros((TILE, COLUMNS), tl.float32)
        for start in range(0, width, DEEP):
            deep = start + tl.arange(0, DEEP)
            mask = there[:, None] & (deep < width)[None, :]
            hidden = tl.load(HIDDEN + token[:, None] * width + deep[None, :], mask=mask, other=0.0)
            mask = (row < size)[None, :] & (deep < width)[:, None]
            at = (block * size + row[None, :]) * width + deep[:, None]
            weight = tl.load(WEIGHT + at, mask=mask, other=0.0)
            total = tl.dot(hidden, weight, total, input_precision=PRECISION)
        to = SCORES + token[:, None] * size + row[None, :]
        tl.store(to, total, mask=there[:, None] & (row < size)[None, :])


@triton.jit
def _pull_hidden(
    GRAD, WEIGHT, GRAD_HIDDEN, ORDER, BLOCKS, FIRST, ENDS, num_blocks, size, width,
    TILE: tl.constexpr, COLUMNS: tl.constexpr, DEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Some columns of the gradient of a tile of hidden states."""
    block = tl.load(BLOCKS + tl.program_id(0)).to(tl.int64)
    if block < num_blocks:
        place = tl.load(FIRST + tl.program_id(0)) + tl.arange(0, TILE)
        there = place < tl.load(ENDS + block)
        token = tl.load(ORDER + place, mask=there, other=0)
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        total = tl.zeros((TILE, COLUMNS), tl.float32)
        for start in range(0, size, DEEP):
            row = start + tl.arange(0, DEEP)
            mask = there[:, None] & (row < size)[None, :]
            grad = tl.load(GRAD + token[:, None] * size + row[None, :], mask=mask, other=0.0)
            mask = (row < size)[:, None] & (column < width)[None, :]
            at = (block * size + row[:, None]) * width + column[None, :]
            weight = tl.load(WEIGHT + at, mask=mask, other=0.0)
            total = tl.dot(grad, weight, total, input_precision=PRECISION)
        to = GRAD_HIDDEN + token[:, None] * width + column[None, :]
        mask = there[:, None] & (column < width)[None, :]
        tl.store(to, total.to(GRAD_HIDDEN.dtype.element_ty), mask=mask)


@triton.jit
def _pull_blocks(
    GRAD, HIDDEN, GRAD_BLOCKS, ORDER, IDS, COUNT, ENDS, size, width,
    TILE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A piece of the gradient of one block, over all its tokens."""
    slot = tl.program_id(0).to(tl.int64)
    block = tl.load(IDS + slot)
    begin = tl.load(ENDS + block - 1, mask=block > 0, other=0)
    end = tl.where(slot < tl.load(COUNT), tl.load(ENDS + block), begin)  # unused room is zero
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(begin, end, TILE):
        place = start + tl.arange(0, TILE)
        there = place < end
        token = tl.load(ORDER + place, mask=there, other=0)
        mask = (row < size)[:, None] & there[None, :]
        grad = tl.load(GRAD + token[None, :] * size + row[:, None], mask=mask, other=0.0)
        mask = there[:, None] & (column < width)[None, :]
        hidden = tl.load(HIDDEN + token[:, None] * width + column[None, :], mask=mask, other=0.0)
        total = tl.dot(grad, hidden, total, input_precision=PRECISION)
    to = GRAD_BLOCKS + (slot * size + row[:, None]) * width + column[None, :]
    mask = (row < size)[:, None] & (column < width)[None, :]
    tl.store(to, total.to(GRAD_BLOCKS.dtype.element_ty), mask=mask)
