"""Losses on a sample of rows that all tokens share: library products and one pass in place.

One product computes the scores of as many tokens as fit :data:`SCORES_AT_ONCE`. Then one program
per token replaces its scores by pulls, the loss's derivatives, and two more products compute the
gradients from these. Rows may repeat; each counts separately.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from softmax_bench.ops.autograd import Gradients
from softmax_bench.ops.cpu.shared_sample import BLACKOUT_BOUND
from softmax_bench.ops.cuda.launch import block_of, sums_of
from softmax_bench.ops.cuda.rows import distinct_rows, sum_rows

SCORES_AT_ONCE = 2**26
"""Most scores held at once: 256 MiB in float32."""
_SOFTMAX, _LOGISTIC, _BLACKOUT = 0, 1, 2


def subset_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    rows: Tensor,
    row_offset: Tensor,
    target_offset: Tensor,
    *,
    keep_hits: bool,
    penalty: float,
) -> tuple[Tensor, Gradients]:
    """Loss, and its gradients in ``hidden``, ``weight`` and ``bias``."""
    operands = _Operands(hidden, weight, bias, target, coefficient, rows)
    count = torch.ones_like(row_offset)
    loss, gradients, _ = _pass(
        operands, row_offset, count, target_offset, _SOFTMAX, keep_hits=keep_hits, penalty=penalty
    )
    return loss, gradients


def subset_blackout(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    rows: Tensor,
    row_offset: Tensor,
    row_count: Tensor,
    target_offset: Tensor,
) -> tuple[Tensor, Gradients]:
    """Loss, and its gradients in ``hidden``, ``weight`` and ``bias``."""
    operands = _Operands(hidden, weight, bias, target, coefficient, rows)
    of_rows = row_offset, row_count, target_offset
    loss, gradients, _ = _pass(operands, *of_rows, _BLACKOUT, keep_hits=False, penalty=0.0)
    return loss, gradients


def subset_logistic(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    log_z: Tensor,
    target: Tensor,
    coefficient: Tensor,
    rows: Tensor,
    row_offset: Tensor,
    row_count: Tensor,
    target_offset: Tensor,
) -> tuple[Tensor, Gradients]:
    """Loss, and its gradients in ``hidden``, ``weight``, ``bias`` and ``log_z``."""
    operands = _Operands(hidden, weight, bias, target, coefficient, rows)
    offsets = row_offset - log_z, row_count, target_offset - log_z
    loss, gradients, pulls = _pass(operands, *offsets, _LOGISTIC, keep_hits=True, penalty=0.0)
    # log_z enters every score like a bias shared by all classes, with the opposite sign.
    return loss, (*gradients, -pulls.sum().to(log_z.dtype))


@dataclass(frozen=True)
class _Operands:
    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    target: Tensor
    coefficient: Tensor
    rows: Tensor


def _pass(
    of: _Operands,
    row_offset: Tensor,
    row_count: Tensor,
    target_offset: Tensor,
    mode: int,
    *,
    keep_hits: bool,
    penalty: float,
) -> tuple[Tensor, Gradients, Tensor]:
    """Loss, gradients in hidden, weight and bias, and the sums of all pulls on each row (S + N)."""
    hidden, weight, rows = of.hidden.contiguous(), of.weight, of.rows.contiguous()
    target, coefficient = of.target.contiguous(), of.coefficient.contiguous()
    (tokens, width), samples = hidden.shape, rows.shape[0]
    num_rows, sums = weight.shape[0], sums_of(hidden)
    ids = torch.cat([rows, target])
    inside = ids.clamp(0, num_rows - 1)
    gathered = weight.index_select(0, inside[:samples]).to(hidden.dtype)
    own = weight.index_select(0, inside[samples:]).to(hidden.dtype)
    offset, own_offset, count = (
        x.to(sums).contiguous() for x in (row_offset, target_offset, row_count)
    )
    if of.bias is not None:
        offset = offset + of.bias.index_select(0, inside[:samples])
        own_offset = own_offset + of.bias.index_select(0, inside[samples:])
    losses = torch.zeros(tokens, dtype=sums, device=hidden.device)
    pulls = torch.zeros(samples + tokens, dtype=sums, device=hidden.device)
    grad_hidden = torch.zeros_like(hidden)
    values = hidden.new_zeros(samples + tokens, width)
    size = max(1, min(tokens, SCORES_AT_ONCE // max(1, samples)))
    for start in range(0, tokens, size):
        part = slice(start, min(start + size, tokens))
        h = hidden[part]
        scores = h @ gathered.t()
        block = min(1024, block_of(samples))
        _pulls_in_place[(h.shape[0],)](
            scores, h, own[part], offset, count, rows, own_offset[part],
            target[part], coefficient[part], losses[part],
            pulls[samples:][part], grad_hidden[part], samples, width, penalty,
            mode, keep_hits, 1 - BLACKOUT_BOUND, block, block_of(width), num_warps=4,
        )  # fmt: skip
        if samples:
            grad_hidden[part].addmm_(scores, gathered)
            values[:samples].addmm_(scores.t(), h)
            pulls[:samples] += scores.sum(0, dtype=sums)
    torch.mul(hidden, pulls[samples:].to(hidden.dtype).unsqueeze(1), out=values[samples:])
    distinct = distinct_rows(ids, num_rows)
    grad_weight = sum_rows(distinct, values.to(weight.dtype), num_rows)
    grad_bias = None
    if of.bias is not None:
        grad_bias = sum_rows(distinct, pulls.to(of.bias.dtype), num_rows)
    return losses.sum(), (grad_hidden, grad_weight, grad_bias), pulls


@triton.jit
def _pulls_in_place(
    SCORES, HIDDEN, OWN, OFFSET, COUNT, ROWS, OWN_OFFSET, TARGET, COEFFICIENT,
    LOSSES, OWN_PULL, GRAD_HIDDEN, samples, width, penalty,
    MODE: tl.constexpr, KEEP_HITS: tl.constexpr, MOST: tl.constexpr, BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """One token: its loss, the pulls in place of its scores, and its own row's part."""
    token = tl.program_id(0).to(tl.int64)
    dtype = LOSSES.dtype.element_ty
    lowest = -3.0e38
    columns = tl.arange(0, WIDTH)
    inside = columns < width
    hidden = tl.load(HIDDEN + token * width + columns, mask=inside, other=0.0).to(dtype)
    own_row = tl.load(OWN + token * width + columns, mask=inside, other=0.0).to(dtype)
    own = tl.sum(hidden * own_row, 0) + tl.load(OWN_OFFSET + token)
    share = tl.load(COEFFICIENT + token).to(dtype)
    target = tl.load(TARGET + token)
    at = SCORES + token * samples
    if MODE != 1:
        # Per lane: the highest score so far, and the sum of powers relative to it.
        highest = tl.full((BLOCK,), lowest, dtype)
        total = tl.zeros((BLOCK,), dtype)
        for start in range(0, samples, BLOCK):
            column = start + tl.arange(0, BLOCK)
            there = column < samples
            score = tl.load(at + column, mask=there, other=0.0).to(dtype)
            score += tl.load(OFFSET + column, mask=there, other=0.0)
            if not KEEP_HITS:
                there = there & (tl.load(ROWS + column, mask=there, other=-1) != target)
            score = tl.where(there, tl.maximum(score, lowest), lowest)
            higher = tl.maximum(highest, score)
            power = tl.where(score > lowest, tl.exp(score - higher), 0.0)
            if MODE == 2:
                power *= tl.load(COUNT + column, mask=there, other=0.0)
            total = total * tl.exp(highest - higher) + power
            highest = higher
        top = tl.maximum(tl.max(highest, 0), own)
        total_of_all = tl.sum(total * tl.exp(highest - top), 0) + tl.exp(own - top)
        log_z = top + tl.log(total_of_all)
    if MODE == 0:
        loss = log_z - own + penalty * log_z * log_z
        scale = share * (1.0 + 2.0 * penalty * log_z)
        own_pull = scale * tl.exp(own - log_z) - share
        for start in range(0, samples, BLOCK):
            column = start + tl.arange(0, BLOCK)
            there = column < samples
            score = tl.load(at + column, mask=there, other=0.0).to(dtype)
            score += tl.load(OFFSET + column, mask=there, other=0.0)
            counted = there
            if not KEEP_HITS:
                counted = there & (tl.load(ROWS + column, mask=there, other=-1) != target)
            pull = tl.where(counted, scale * tl.exp(score - log_z), 0.0)
            tl.store(at + column, pull.to(SCORES.dtype.element_ty), mask=there)
    elif MODE == 2:
        losses = tl.zeros((BLOCK,), dtype)
        odds = tl.zeros((BLOCK,), dtype)
        for start in range(0, samples, BLOCK):
            column = start + tl.arange(0, BLOCK)
            there = column < samples
            score = tl.load(at + column, mask=there, other=0.0).to(dtype)
            score += tl.load(OFFSET + column, mask=there, other=0.0)
            there = there & (tl.load(ROWS + column, mask=there, other=-1) != target)
            count = tl.load(COUNT + column, mask=there, other=0.0)
            p = tl.where(there, tl.exp(score - log_z), 0.0)
            bounded = tl.minimum(p, MOST)
            losses -= count * tl.log(1.0 - bounded)
            odds += count * tl.where(p < MOST, bounded / (1.0 - bounded), 0.0)
        loss = log_z - own + tl.sum(losses, 0)
        pull_z = 1.0 - tl.sum(odds, 0)
        own_pull = share * (pull_z * tl.exp(own - log_z) - 1.0)
        for start in range(0, samples, BLOCK):
            column = start + tl.arange(0, BLOCK)
            inside_row = column < samples
            score = tl.load(at + column, mask=inside_row, other=0.0).to(dtype)
            score += tl.load(OFFSET + column, mask=inside_row, other=0.0)
            there = inside_row & (tl.load(ROWS + column, mask=inside_row, other=-1) != target)
            count = tl.load(COUNT + column, mask=there, other=0.0)
            p = tl.where(there, tl.exp(score - log_z), 0.0)
            bounded = tl.minimum(p, MOST)
            pull = tl.where(p < MOST, bounded / (1.0 - bounded), 0.0) + pull_z * p
            pull = (share * count * pull).to(SCORES.dtype.element_ty)
            tl.store(at + column, pull, mask=inside_row)
    else:
        small = tl.exp(-tl.abs(own))
        loss = tl.maximum(-own, 0.0) + tl.log(1.0 + small)
        own_pull = -share * tl.where(own >= 0, small, 1.0) / (1.0 + small)
        losses = tl.zeros((BLOCK,), dtype)
        for start in range(0, samples, BLOCK):
            column = start + tl.arange(0, BLOCK)
            there = column < samples
            score = tl.load(at + column, mask=there, other=0.0).to(dtype)
            score += tl.load(OFFSET + column, mask=there, other=0.0)
            count = tl.load(COUNT + column, mask=there, other=0.0)
            power = tl.exp(-tl.abs(score))
            losses += count * (tl.maximum(score, 0.0) + tl.log(1.0 + power))
            pull = share * count * tl.where(score >= 0, 1.0, power) / (1.0 + power)
            tl.store(at + column, pull.to(SCORES.dtype.element_ty), mask=there)
        loss += tl.sum(losses, 0)
    tl.store(LOSSES + token, share * loss)
    tl.store(OWN_PULL + token, own_pull)
    pulled = (own_pull * own_row).to(GRAD_HIDDEN.dtype.element_ty)
    tl.store(GRAD_HIDDEN + token * width + columns, pulled, mask=inside)
