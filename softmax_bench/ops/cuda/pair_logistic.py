"""Logistic losses on pairs: one program per token scores its pairs and computes their pulls."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from softmax_bench.ops.autograd import no_second_derivative
from softmax_bench.ops.cuda.launch import block_of, packed, sums_of, warps_for
from softmax_bench.ops.cuda.rows import distinct_rows, sum_rows


def pair_logistic(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: Tensor,
    offset: Tensor,
    positive_weight: float,
) -> Tensor:
    """See :func:`softmax_bench.ops.pair_logistic.pair_logistic`; differentiable."""
    offset = offset.to(sums_of(hidden))
    losses: Tensor = _PairLogistic.apply(hidden, weight, bias, offset, rows, positive_weight)
    return losses


@no_second_derivative
class _PairLogistic(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        offset: Tensor,
        rows: Tensor,
        positive_weight: float,
    ) -> Tensor:
        hidden, weight, rows = hidden.contiguous(), weight.contiguous(), rows.contiguous()
        (tokens, width), num_rows = hidden.shape, weight.shape[0]
        losses = torch.zeros(tokens, dtype=offset.dtype, device=hidden.device)
        pulls = torch.zeros_like(offset, memory_format=torch.contiguous_format)
        pull_hidden, block = torch.zeros_like(hidden), block_of(width)
        if tokens:
            _walk[(tokens,)](
                hidden, weight, weight if bias is None else packed(bias), rows, packed(offset),
                losses, pulls, pull_hidden, rows.shape[1], num_rows, width, positive_weight,
                bias is not None, block, num_warps=warps_for(block),
            )  # fmt: skip
        ctx.save_for_backward(hidden, rows, pulls, pull_hidden)
        ctx.num_rows, ctx.biased = num_rows, bias is not None
        return losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, rows, pulls, pull_hidden = ctx.saved_tensors
        pulls = pulls * grad.unsqueeze(1)
        token = torch.arange(rows.shape[0], device=rows.device).unsqueeze(1).expand_as(rows)
        distinct, flat = distinct_rows(rows.view(-1), ctx.num_rows), pulls.view(-1)
        of_pairs = {"scale": flat, "source": token.reshape(-1)}
        return (
            pull_hidden * grad.unsqueeze(1).to(hidden.dtype),
            sum_rows(distinct, hidden, ctx.num_rows, **of_pairs),
            sum_rows(distinct, flat.to(hidden.dtype), ctx.num_rows) if ctx.biased else None,
            pulls,
            None,
            None,
        )


@triton.jit
def _walk(
    HIDDEN, WEIGHT, BIAS, ROWS, OFFSET, LOSSES, PULLS, PULL_HIDDEN,
    pairs, num_rows, width, positive_weight, BIASED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    dtype = LOSSES.dtype.element_ty
    hidden = tl.load(HIDDEN + token * width + columns, mask=inside, other=0.0).to(dtype)
    pull_hidden = tl.zeros((BLOCK,), dtype)
    loss = tl.zeros((1,), dtype)
    for i in range(pairs):
        at = token * pairs + i
        row = tl.load(ROWS + at).to(tl.int64)
        there = (row >= 0) & (row < num_rows)
        weight = tl.load(WEIGHT + row * width + columns, mask=inside & there, other=0.0).to(dtype)
        score = tl.sum(hidden * weight, 0) + tl.load(OFFSET + at)
        if BIASED:
            score += tl.load(BIAS + row, mask=there, other=0.0).to(dtype)
        sign = tl.where(i == 0, -1.0, 1.0).to(dtype)
        share = tl.where(there, tl.where(i == 0, positive_weight, 1.0), 0.0).to(dtype)
        odds = sign * score
        small = tl.exp(-tl.abs(odds))
        loss += share * (tl.maximum(odds, 0.0) + tl.log(1.0 + small))
        pull = share * sign * tl.where(odds >= 0, 1.0, small) / (1.0 + small)
        pull_hidden += pull * weight
        tl.store(PULLS + at, pull)
    tl.store(LOSSES + token + tl.arange(0, 1), loss)
    to = PULL_HIDDEN + token * width + columns
    tl.store(to, pull_hidden.to(PULL_HIDDEN.dtype.element_ty), mask=inside)
