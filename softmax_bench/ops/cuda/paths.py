"""Losses along the paths of a tree: one program per token walks its path once.

On the way, it computes the loss, the pull of each node and the gradient of the hidden state. Paths
are stored in rows as long as the longest, so that no size depends on the targets.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from softmax_bench.ops.autograd import no_second_derivative
from softmax_bench.ops.cuda.launch import block_of, packed, sums_of, warps_for
from softmax_bench.ops.cuda.rows import distinct_rows, sum_rows
from softmax_bench.ops.paths import PathTable


def path_losses(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    paths: PathTable,
    target: Tensor,
) -> Tensor:
    """``-log p`` of each token's path (N,); differentiable."""
    losses: Tensor = _PathLosses.apply(hidden, weight, bias, target, paths)
    return losses


@no_second_derivative
class _PathLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        paths: PathTable,
    ) -> Tensor:
        hidden, weight, target = hidden.contiguous(), weight.contiguous(), target.contiguous()
        (tokens, width), arity = hidden.shape, paths.rows_per_node
        sums = sums_of(hidden)
        losses = torch.zeros(tokens, dtype=sums, device=hidden.device)
        pulls = torch.zeros(tokens, paths.depth * arity, dtype=sums, device=hidden.device)
        rows = torch.full(pulls.shape, -1, dtype=torch.int32, device=hidden.device)
        pull_hidden = torch.zeros_like(hidden)
        if pulls.numel():
            block, sides = block_of(width), block_of(arity)
            _walk[(tokens,)](
                hidden, weight, weight if bias is None else packed(bias),
                target, paths.starts, paths.nodes, paths.codes, paths.children,
                losses, pulls, rows, pull_hidden,
                paths.starts.shape[0] - 1, paths.children.shape[0], width, pulls.shape[1], arity,
                paths.children.shape[1], bias is not None, arity > 1, sides, block,
                num_warps=warps_for(block * sides),
            )  # fmt: skip
        ctx.save_for_backward(hidden, pulls, rows, pull_hidden)
        ctx.paths, ctx.num_rows, ctx.biased = paths, weight.shape[0], bias is not None
        return losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, pulls, rows, pull_hidden = ctx.saved_tensors
        tokens, room = pulls.shape
        pulls = (pulls * grad.unsqueeze(1)).view(-1)
        token = torch.arange(tokens, device=grad.device).unsqueeze(1).expand(-1, room).reshape(-1)
        distinct = distinct_rows(rows.view(-1), ctx.num_rows, ctx.paths.most_rows(tokens))
        grad_weight = sum_rows(distinct, hidden, ctx.num_rows, scale=pulls, source=token)
        grad_bias = None
        if ctx.biased:
            grad_bias = sum_rows(distinct, pulls.to(hidden.dtype), ctx.num_rows)
        return pull_hidden * grad.unsqueeze(1).to(hidden.dtype), grad_weight, grad_bias, None, None


@triton.jit
def _walk(
    HIDDEN, WEIGHT, BIAS, TARGET, STARTS, NODES, CODES, CHILDREN,
    LOSSES, PULLS, ROWS, PULL_HIDDEN,
    num_classes, num_nodes, width, room, arity, sides,
    BIASED: tl.constexpr, KARY: tl.constexpr, SIDES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    side = tl.arange(0, SIDES)
    dtype = LOSSES.dtype.element_ty
    target = tl.load(TARGET + token)
    known = (target >= 0) & (target < num_classes)
    begin = tl.load(STARTS + target, mask=known, other=0)
    end = tl.load(STARTS + target + 1, mask=known, other=0)
    hidden = tl.load(HIDDEN + token * width + columns, mask=inside, other=0.0).to(dtype)
    pull_hidden = tl.zeros((BLOCK,), dtype)
    loss = tl.zeros((1,), dtype)
    out = token * room
    for i in range(begin, end):
        node = tl.load(NODES + i).to(tl.int64)
        code = tl.load(CODES + i).to(tl.int32)
        if KARY:
            row = node * arity + side
            child = tl.load(CHILDREN + node * sides + side, mask=side < sides, other=0)
            there = (side < arity) & (child != -9223372036854775808)
            mask = there[:, None] & inside[None, :]
            weight = tl.load(WEIGHT + row[:, None] * width + columns[None, :], mask=mask, other=0.0)
            weight = weight.to(dtype)
            score = tl.sum(weight * hidden[None, :], 1)
            if BIASED:
                score += tl.load(BIAS + row, mask=there, other=0.0).to(dtype)
            score = tl.where(there, score, -float("inf"))
            highest = tl.max(score, 0)
            power = tl.exp(score - highest)
            total = tl.sum(power, 0)
            own = tl.sum(tl.where(side == code, score, 0.0), 0)
            loss += highest + tl.log(total) - own
            pull = power / total - tl.where(side == code, 1.0, 0.0).to(dtype)
            pull_hidden += tl.sum(pull[:, None] * weight, 0)
            at = out + (i - begin) * arity + side
            tl.store(PULLS + at, pull, mask=there)
            tl.store(ROWS + at, row.to(tl.int32), mask=there)
        else:
            weight = tl.load(WEIGHT + node * width + columns, mask=inside, other=0.0).to(dtype)
            score = tl.sum(hidden * weight, 0)
            if BIASED:
                score += tl.load(BIAS + node).to(dtype)
            sign = 1.0 - 2.0 * code.to(dtype)
            odds = sign * score
            small = tl.exp(-tl.abs(odds))
            loss += tl.maximum(odds, 0.0) + tl.log(1.0 + small)
            pull = sign * tl.where(odds >= 0, 1.0, small) / (1.0 + small)
            pull_hidden += pull * weight
            at = out + (i - begin)
            tl.store(PULLS + at, pull)
            tl.store(ROWS + at, node.to(tl.int32))
    tl.store(LOSSES + token + tl.arange(0, 1), loss)
    to = PULL_HIDDEN + token * width + columns
    tl.store(to, pull_hidden.to(PULL_HIDDEN.dtype.element_ty), mask=inside)
