"""Passes over the scores of a chunk of tokens: one program per row, in place.

One sweep with a running maximum per lane computes the sums of a row. A second sweep, backwards,
computes the gradient, because what was read last is still in cache. For a target outside the
classes nothing is read: its loss is NaN and its gradient 0.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from softmax_bench.ops.cuda.launch import packed, sums_of
from softmax_bench.ops.objective import Objective, Pulls, Terms, TokenSums

BLOCK = 4096
WARPS = 8


@triton.jit
def _values(S, B, columns, inside, ACC: tl.constexpr, HAS_BIAS: tl.constexpr, CAP: tl.constexpr):
    """Scores in these columns, ``-inf`` beyond the last class."""
    x = tl.load(S + columns, mask=inside, other=0.0).to(ACC)
    if HAS_BIAS:
        x += tl.load(B + columns, mask=inside, other=0.0).to(ACC)
    if CAP != 0:
        x = CAP * (2 * tl.sigmoid(2 * x / CAP) - 1)
    return tl.where(inside, x, -float("inf"))


@triton.jit
def _row_sums(
    S, B, U, end, V, ACC: tl.constexpr, HAS_BIAS: tl.constexpr, CAP: tl.constexpr,
    WEIGHTED: tl.constexpr, MEAN: tl.constexpr, EXPECTED: tl.constexpr, BEST: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """``log Z``, mean score, expected score and best class of a row's first ``end`` columns."""
    lanes = tl.arange(0, BLOCK)
    top = tl.full((BLOCK,), -float("inf"), ACC)
    z = tl.zeros((BLOCK,), ACC)
    mean = tl.zeros((BLOCK,), ACC)
    expected = tl.zeros((BLOCK,), ACC)
    best = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, end, BLOCK):
        columns = start + lanes
        inside = columns < end
        x = _values(S, B, columns, inside, ACC, HAS_BIAS, CAP)
        higher = tl.maximum(top, x)
        reference = tl.where(higher == -float("inf"), 0.0, higher)
        decay = tl.exp(top - reference)
        term = tl.exp(x - reference)
        z = z * decay + term
        if EXPECTED:
            expected = expected * decay + tl.where(term > 0, term * x, 0.0)
        if MEAN:
            shown = tl.where(inside, x, 0.0)
            if WEIGHTED:
                shown *= tl.load(U + columns, mask=inside, other=0.0).to(ACC)
            mean += shown
        if BEST:
            best = tl.where(x > top, columns, best)
        top = higher
    highest = tl.max(top, 0)
    reference = tl.where(highest == -float("inf"), 0.0, highest)
    decay = tl.exp(top - reference)
    total = tl.sum(z * decay, 0)
    log_z = reference + tl.log(total)
    best_class = tl.min(tl.where(top == highest, best, 2147483647), 0)
    return log_z, tl.sum(mean, 0) / V, tl.sum(expected * decay, 0) / total, best_class


@triton.jit
def _row_gradient(
    S, B, U, end, V, target, log_z, expected, pull_target, pull_z, pull_mean, pull_expected,
    ACC: tl.constexpr, HAS_BIAS: tl.constexpr, CAP: tl.constexpr, WEIGHTED: tl.constexpr,
    MEAN: tl.constexpr, EXPECTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Overwrite a row's scores: those before ``end`` by their gradient, the others by 0."""
    lanes = tl.arange(0, BLOCK)
    for i in range(tl.cdiv(V, BLOCK)):
        columns = (tl.cdiv(V, BLOCK) - 1 - i) * BLOCK + lanes
        inside = columns < end
        x = _values(S, B, columns, inside, ACC, HAS_BIAS, CAP)
        p = tl.exp(x - log_z)
        if EXPECTED:
            g = p * (pull_z + pull_expected * (1 + tl.where(p > 0, x - expected, 0.0)))
        else:
            g = p * pull_z
        g = tl.where(columns == target, g + pull_target, g)
        if MEAN:
            share = pull_mean / V
            if WEIGHTED:
                share *= tl.load(U + columns, mask=inside, other=0.0).to(ACC)
            g += share
        if CAP != 0:
            g *= 1 - (x / CAP) * (x / CAP)
        g = tl.where(inside, g, 0.0)
        tl.store(S + columns, g.to(S.dtype.element_ty), mask=columns < V)


@triton.jit
def loss_kernel(
    S, B, U, U_MEAN, T, C, OUT, V, stride, ACC: tl.constexpr, HAS_BIAS: tl.constexpr,
    CAP: tl.constexpr, WEIGHTED: tl.constexpr, SMOOTHING: tl.constexpr, PENALTY: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write a row's weighted loss into ``OUT``, and its gradient over its scores."""
    row = tl.program_id(0).to(tl.int64)
    S += row * stride
    target = tl.load(T + row)
    c = tl.load(C + row).to(ACC)
    valid = (target >= 0) & (target < V)
    end = tl.where(valid & (c != 0), V, 0)
    log_z, mean, _, _ = _row_sums(
        S, B, U, end, V, ACC, HAS_BIAS, CAP, WEIGHTED, SMOOTHING != 0, False, False, BLOCK
    )
    own = tl.sum(_values(S, B, target + tl.arange(0, 1), valid, ACC, HAS_BIAS, CAP), 0)
    of_target = tl.full((), 1 - SMOOTHING, ACC)
    of_mean = tl.full((), SMOOTHING, ACC)
    if WEIGHTED:
        of_target *= tl.load(U + target, mask=valid, other=0.0).to(ACC)
        of_mean *= tl.load(U_MEAN).to(ACC)
    loss = of_target * (log_z - own)
    pull_z = of_target
    if SMOOTHING != 0:
        loss += of_mean * log_z - SMOOTHING * mean
        pull_z += of_mean
    if PENALTY != 0:
        loss += PENALTY * log_z * log_z
        pull_z += 2 * PENALTY * log_z
    loss = tl.where(valid, tl.where(c != 0, c * loss, 0.0), float("nan"))
    tl.store(OUT + row, loss)
    tl.debug_barrier()
    _row_gradient(
        S, B, U, end, V, target, log_z, 0.0, -c * of_target, c * pull_z, -c * SMOOTHING, 0.0,
        ACC, HAS_BIAS, CAP, WEIGHTED, SMOOTHING != 0, False, BLOCK,
    )  # fmt: skip


@triton.jit
def sums_kernel(
    S, B, U, T, OWN, LOG_Z, MEAN_OUT, EXPECTED_OUT, BEST_OUT, V, stride, ACC: tl.constexpr,
    HAS_BIAS: tl.constexpr, CAP: tl.constexpr, WEIGHTED: tl.constexpr, MEAN: tl.constexpr,
    EXPECTED: tl.constexpr, BEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write a row's sums."""
    row = tl.program_id(0).to(tl.int64)
    S += row * stride
    target = tl.load(T + row)
    valid = (target >= 0) & (target < V)
    log_z, mean, expected, best = _row_sums(
        S, B, U, V, V, ACC, HAS_BIAS, CAP, WEIGHTED, MEAN, EXPECTED, BEST, BLOCK
    )
    own = tl.sum(_values(S, B, target + tl.arange(0, 1), valid, ACC, HAS_BIAS, CAP), 0)
    tl.store(OWN + row, tl.where(valid, own, float("nan")))
    tl.store(LOG_Z + row, log_z)
    if MEAN:
        tl.store(MEAN_OUT + row, mean)
    if EXPECTED:
        tl.store(EXPECTED_OUT + row, expected)
    if BEST:
        tl.store(BEST_OUT + row, best.to(tl.int64))


@triton.jit
def gradient_kernel(
    S, B, U, T, LOG_Z, EXPECTED_SCORE, PULL_TARGET, PULL_Z, PULL_MEAN, PULL_EXPECTED, V, stride,
    ACC: tl.constexpr, HAS_BIAS: tl.constexpr, CAP: tl.constexpr, WEIGHTED: tl.constexpr,
    MEAN: tl.constexpr, EXPECTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write a row's gradient over its scores, from its sums and the gradients in them."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(T + row)
    valid = (target >= 0) & (target < V)
    expected = tl.zeros((), ACC)
    pull_expected = tl.zeros((), ACC)
    pull_mean = tl.zeros((), ACC)
    if EXPECTED:
        expected += tl.load(EXPECTED_SCORE + row).to(ACC)
        pull_expected += tl.load(PULL_EXPECTED + row).to(ACC)
    if MEAN:
        pull_mean += tl.load(PULL_MEAN + row).to(ACC)
    _row_gradient(
        S + row * stride, B, U, tl.where(valid, V, 0), V, target, tl.load(LOG_Z + row).to(ACC),
        expected, tl.load(PULL_TARGET + row).to(ACC), tl.load(PULL_Z + row).to(ACC), pull_mean,
        pull_expected, ACC, HAS_BIAS, CAP, WEIGHTED, MEAN, EXPECTED, BLOCK,
    )  # fmt: skip


def loss_(
    scores: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    objective: Objective,
    out: Tensor,
) -> None:
    """See :func:`softmax_bench.ops.cpu.score_rows.loss_`."""
    bias, class_weight = packed(bias), packed(objective.class_weight)
    loss_kernel[(scores.shape[0],)](
        scores, bias, class_weight, None if class_weight is None else class_weight.mean(),
        target, coefficient, out, scores.shape[1], scores.stride(0),
        SMOOTHING=objective.label_smoothing, PENALTY=objective.penalty,
        **_common(scores, bias, objective.soft_cap, class_weight),
    )  # fmt: skip


def sums(scores: Tensor, bias: Tensor | None, target: Tensor, terms: Terms) -> TokenSums:
    """See :func:`softmax_bench.ops.cpu.score_rows.sums`."""
    num_tokens = scores.shape[0]
    own, log_z, mean, expected = scores.new_empty(4, num_tokens, dtype=sums_of(scores))
    best = target.new_empty(num_tokens) if terms.best else None
    sums_kernel[(num_tokens,)](
        scores, packed(bias), packed(terms.class_weight), target, own, log_z, mean, expected,
        best, scores.shape[1], scores.stride(0),
        MEAN=terms.mean, EXPECTED=terms.expected, BEST=terms.best,
        **_common(scores, bias, terms.soft_cap, terms.class_weight),
    )  # fmt: skip
    return TokenSums(
        own, log_z, mean if terms.mean else None, expected if terms.expected else None, best
    )


def gradient_(
    scores: Tensor, bias: Tensor | None, target: Tensor, pulls: Pulls, sums: TokenSums, terms: Terms
) -> None:
    """See :func:`softmax_bench.ops.cpu.score_rows.gradient_`."""
    gradient_kernel[(scores.shape[0],)](
        scores, packed(bias), packed(terms.class_weight), target, sums.log_z,
        sums.expected_score, pulls.target_score, pulls.log_z, pulls.mean_score,
        pulls.expected_score, scores.shape[1], scores.stride(0),
        MEAN=pulls.mean_score is not None, EXPECTED=pulls.expected_score is not None,
        **_common(scores, bias, terms.soft_cap, terms.class_weight),
    )  # fmt: skip


def _common(
    scores: Tensor, bias: Tensor | None, soft_cap: float, class_weight: Tensor | None
) -> dict[str, Any]:
    block = min(BLOCK, max(128, triton.next_power_of_2(scores.shape[1])))
    return {
        "ACC": tl.float64 if scores.dtype == torch.float64 else tl.float32,
        "HAS_BIAS": bias is not None,
        "CAP": soft_cap,
        "WEIGHTED": class_weight is not None,
        "BLOCK": block,
        "num_warps": max(1, min(WARPS, block // 128)),
    }
