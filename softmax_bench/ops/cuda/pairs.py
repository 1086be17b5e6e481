"""Scores of (token, row) pairs: one program per token, which keeps its hidden state."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from softmax_bench.ops.cuda.launch import block_of, packed, sums_of, warps_for
from softmax_bench.ops.cuda.rows import distinct_rows, sum_rows


def pair_scores(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, starts: Tensor, rows: Tensor
) -> Tensor:
    """Scores (P,) of all pairs; 0 if the row is not one of the weight's."""
    hidden, weight, starts = hidden.contiguous(), weight.contiguous(), starts.contiguous()
    rows = rows.contiguous()
    scores = torch.zeros(rows.shape[0], dtype=sums_of(hidden), device=hidden.device)
    (num_rows, width), block = weight.shape, block_of(hidden.shape[1])
    if scores.numel():
        _scores[(hidden.shape[0],)](
            hidden, weight, weight if bias is None else packed(bias), starts, rows, scores,
            rows.shape[0], num_rows, width, bias is not None, block, num_warps=warps_for(block),
        )  # fmt: skip
    return scores


def pair_gradients(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    rows: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients in hidden states, weight and bias, given that in the scores ``grad`` (P,)."""
    hidden, weight, grad = hidden.contiguous(), weight.contiguous(), grad.contiguous()
    starts, rows = starts.contiguous(), rows.contiguous()
    grad_hidden, pairs = torch.zeros_like(hidden), rows.shape[0]
    (num_rows, width), block = weight.shape, block_of(hidden.shape[1])
    if pairs:
        _pull_hidden[(hidden.shape[0],)](
            grad, weight, starts, rows, grad_hidden,
            pairs, num_rows, width, block, num_warps=warps_for(block),
        )  # fmt: skip
    places = torch.arange(pairs, dtype=starts.dtype, device=starts.device)
    token = torch.searchsorted(starts, places, right=True) - 1
    distinct = distinct_rows(rows, num_rows)
    grad_weight = sum_rows(distinct, hidden, num_rows, scale=grad, source=token)
    if bias is None:
        return grad_hidden, grad_weight, None
    return grad_hidden, grad_weight, sum_rows(distinct, grad.to(bias.dtype), num_rows)


@triton.jit
def _scores(
    HIDDEN, WEIGHT, BIAS, STARTS, ROWS, SCORES, pairs, num_rows, width,
    BIASED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    dtype = SCORES.dtype.element_ty
    hidden = tl.load(HIDDEN + token.to(tl.int64) * width + columns, mask=inside, other=0.0)
    hidden = hidden.to(dtype)
    first = tl.maximum(tl.load(STARTS + token), 0)
    for i in range(first, tl.minimum(tl.load(STARTS + token + 1), pairs)):
        row = tl.load(ROWS + i).to(tl.int64)
        there = (row >= 0) & (row < num_rows)
        weight = tl.load(WEIGHT + row * width + columns, mask=inside & there, other=0.0)
        score = tl.sum(hidden * weight.to(dtype), 0)
        if BIASED:
            score += tl.load(BIAS + row, mask=there, other=0.0).to(dtype)
        tl.store(SCORES + i, score)


@triton.jit
def _pull_hidden(
    GRAD, WEIGHT, STARTS, ROWS, GRAD_HIDDEN, pairs, num_rows, width, BLOCK: tl.constexpr
):
    token = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    dtype = GRAD.dtype.element_ty
    total = tl.zeros((BLOCK,), dtype)
    first = tl.maximum(tl.load(STARTS + token), 0)
    for i in range(first, tl.minimum(tl.load(STARTS + token + 1), pairs)):
        row = tl.load(ROWS + i).to(tl.int64)
        there = (row >= 0) & (row < num_rows)
        weight = tl.load(WEIGHT + row * width + columns, mask=inside & there, other=0.0)
        total += tl.load(GRAD + i) * weight.to(dtype)
    to = GRAD_HIDDEN + token.to(tl.int64) * width + columns
    tl.store(to, total.to(GRAD_HIDDEN.dtype.element_ty), mask=inside)
