"""Softmax over the classes of a group of tokens whose number only the device knows.

Scores are never stored: a tile of them is computed where it is needed, once for the normaliser and
once for each gradient, as in FlashAttention (Dao et al. 2022). This needs two more products than
storing the scores, but they are narrow, and N x V numbers would have to be moved several times.

The grid is that of the largest group possible. Each tile of a group's tokens is shared by as many
programs as there are for it, each of which takes every n-th tile of classes. Their sums are joined
in a fixed order, so results are bitwise the same in every run.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.ops.autograd import no_second_derivative
from softmax_bench.ops.cpu import groups as plain
from softmax_bench.ops.cuda.launch import block_of, packed, precision, sums_of
from softmax_bench.ops.groups import Groups

TILE = 64
"""Tokens of a tile."""
CLASSES = 32
"""Classes of a tile."""
PROGRAMS = 512
"""Programs that share a group's tokens: a few for each processor of a large GPU."""


def group_cross_entropy(
    hidden: Tensor,
    projection: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    groups: Groups,
    index: int,
) -> Tensor:
    """See :func:`softmax_bench.ops.groups.group_cross_entropy`."""
    losses = group_nll(hidden, projection, weight, bias, target, groups, index)
    shares = coefficient.to(losses.dtype)
    return torch.where(shares != 0, losses * shares, 0.0).sum()


def group_nll(
    hidden: Tensor,
    projection: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    groups: Groups,
    index: int,
) -> Tensor:
    """See :func:`softmax_bench.ops.groups.group_nll`."""
    if hidden.dtype == torch.float64:  # few GPUs' tensor cores support it, and Triton does not
        operands = hidden, projection, weight, bias, target, groups, index
        return inspect.unwrap(plain.group_nll)(*operands)
    projected = F.linear(hidden, projection)  # of all tokens, because it is narrow
    rows, offsets = weight.to(projected.dtype), None if bias is None else bias.to(projected.dtype)
    losses: Tensor = _GroupNll.apply(projected, rows, offsets, target, groups, index)
    return losses


@no_second_derivative
class _GroupNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        groups: Groups,
        index: int,
    ) -> Tensor:
        hidden, weight, target = hidden.contiguous(), weight.contiguous(), target.contiguous()
        log_z, losses = hidden.new_zeros(2, hidden.shape[0], dtype=sums_of(hidden))
        of_group = target, groups.order, groups.ends, index
        ctx.index = index
        ctx.save_for_backward(hidden, weight, packed(bias), *of_group[:3], log_z)
        tiles = triton.cdiv(hidden.shape[0], TILE)
        if tiles:
            programs = max(tiles, PROGRAMS)
            parts = log_z.new_empty(3, programs, TILE)
            operands, options = _launch(hidden, weight, packed(bias))
            _sums[(programs,)](*operands, *of_group, parts, programs, **options)
            _join_sums[(tiles,)](
                *of_group, parts, log_z, losses, weight.shape[0], programs, TILE, CLASSES,
                num_warps=1,
            )  # fmt: skip
        return losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, *of_tokens, log_z = ctx.saved_tensors
        (tokens, width), classes = hidden.shape, weight.shape[0]
        grad_hidden, grad_weight = torch.zeros_like(hidden), torch.empty_like(weight)
        grad_bias = None if bias is None else torch.empty_like(bias)
        unit = grad.new_ones(())
        if hidden.dtype == torch.float16 and tokens:  # the pulls of a mean could underflow
            unit = grad.abs().amax().clamp(min=torch.finfo(grad.dtype).tiny)
        of_group = *of_tokens, ctx.index, log_z, (grad / unit).contiguous(), unit
        columns = max(16, min(128, block_of(width)))
        tiles, pieces = triton.cdiv(tokens, TILE), triton.cdiv(width, columns)
        operands, options = _launch(hidden, weight, bias)
        if tiles:
            programs = max(tiles, PROGRAMS)
            parts = log_z.new_empty(programs, TILE, width)
            _pull_hidden[(programs, pieces)](
                *operands, *of_group, parts, programs, COLUMNS=columns, **options
            )
            _join_hidden[(tiles, pieces)](
                *of_tokens[1:], ctx.index, unit, parts, grad_hidden, classes, width, programs,
                TILE, CLASSES, columns, num_warps=4,
            )  # fmt: skip
        _pull_weight[(triton.cdiv(classes, CLASSES), pieces)](
            *operands, *of_group, grad_weight, weight if bias is None else grad_bias,
            COLUMNS=columns, **options,
        )  # fmt: skip
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _launch(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Operands of scores and their sizes, and what is known when a kernel is compiled."""
    operands = hidden, weight, weight if bias is None else bias, *weight.shape
    options = {"BIASED": bias is not None, "PRECISION": precision(hidden), "num_warps": 4}
    return operands, {"TILE": TILE, "CLASSES": CLASSES, "DEEP": 32, **options}


@triton.jit
def _share(ENDS, index, classes, programs, TILE: tl.constexpr, CLASSES: tl.constexpr):
    """Begin and end of a group's tokens, and the number of programs that share a tile of them."""
    begin = tl.load(ENDS + index - 1, mask=index > 0, other=0)
    end = tl.load(ENDS + index)
    tiles = tl.maximum(tl.cdiv(end - begin, TILE), 1)
    return begin, end, tl.minimum(tl.maximum(programs // tiles, 1), tl.cdiv(classes, CLASSES))


@triton.jit
def _scores(
    HIDDEN, WEIGHT, BIAS, token, there, column, classes, width,
    DEEP: tl.constexpr, BIASED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores of some tokens and classes, ``-inf`` beyond the last class."""
    known = column < classes
    total = tl.zeros((token.shape[0], column.shape[0]), tl.float32)
    for start in range(0, width, DEEP):
        deep = start + tl.arange(0, DEEP)
        mask = there[:, None] & (deep < width)[None, :]
        hidden = tl.load(HIDDEN + token[:, None] * width + deep[None, :], mask=mask, other=0.0)
        mask = known[None, :] & (deep < width)[:, None]
        weight = tl.load(WEIGHT + column[None, :] * width + deep[:, None], mask=mask, other=0.0)
        total = tl.dot(hidden, weight, total, input_precision=PRECISION)
    if BIASED:
        total += tl.load(BIAS + column, mask=known, other=0.0).to(tl.float32)[None, :]
    return tl.where(known[None, :], total, -float("inf"))


@triton.jit
def _pulls(score, column, target, log_z, grad, classes):
    """Gradient in the scores; 0 for a target that is no class of the group."""
    grad = tl.where((target >= 0) & (target < classes), grad, 0.0)[:, None]
    hit = tl.where(column[None, :] == target[:, None], 1.0, 0.0)
    return tl.where(grad != 0, grad * (tl.exp(score - log_z[:, None]) - hit), 0.0)


@triton.jit
def _sums(
    HIDDEN, WEIGHT, BIAS, classes, width, TARGET, ORDER, ENDS, index, PARTS, programs,
    TILE: tl.constexpr, CLASSES: tl.constexpr, DEEP: tl.constexpr, BIASED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Highest score, sum of powers relative to it, and own score, of a tile and some classes."""
    begin, end, splits = _share(ENDS, index, classes, programs, TILE, CLASSES)
    place = begin + tl.program_id(0) // splits * TILE + tl.arange(0, TILE)
    there = place < end
    if tl.max(there.to(tl.int32), 0) == 1:
        token = tl.load(ORDER + place, mask=there, other=0)
        target = tl.load(TARGET + token, mask=there, other=-1)
        highest = tl.full((TILE,), -3.0e38, tl.float32)
        total = tl.zeros((TILE,), tl.float32)
        own = tl.zeros((TILE,), tl.float32)
        first = (tl.program_id(0) % splits).to(tl.int64) * CLASSES
        for start in range(first, classes, splits * CLASSES):
            column = start + tl.arange(0, CLASSES)
            score = _scores(
                HIDDEN, WEIGHT, BIAS, token, there, column, classes, width, DEEP, BIASED, PRECISION
            )
            higher = tl.maximum(highest, tl.max(score, 1))
            power = tl.exp(score - higher[:, None])
            total = total * tl.exp(highest - higher) + tl.sum(power, 1)
            own += tl.sum(tl.where(column[None, :] == target[:, None], score, 0.0), 1)
            highest = higher
        to = PARTS + tl.program_id(0) * TILE + tl.arange(0, TILE)
        tl.store(to, highest)
        tl.store(to + programs * TILE, total)
        tl.store(to + 2 * programs * TILE, own)


@triton.jit
def _join_sums(
    TARGET, ORDER, ENDS, index, PARTS, LOG_Z, LOSSES, classes, programs,
    TILE: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Normaliser and loss of each token of a tile."""
    begin, end, splits = _share(ENDS, index, classes, programs, TILE, CLASSES)
    lane = tl.arange(0, TILE)
    place = begin + tl.program_id(0) * TILE + lane
    there = place < end
    token = tl.load(ORDER + place, mask=there, other=0)
    target = tl.load(TARGET + token, mask=there, other=-1)
    highest = tl.full((TILE,), -3.0e38, tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    own = tl.zeros((TILE,), tl.float32)
    if tl.max(there.to(tl.int32), 0) == 1:
        for split in range(splits):
            part = PARTS + (tl.program_id(0) * splits + split) * TILE + lane
            of_part = tl.load(part)
            higher = tl.maximum(highest, of_part)
            total = total * tl.exp(highest - higher)
            total += tl.load(part + programs * TILE) * tl.exp(of_part - higher)
            own += tl.load(part + 2 * programs * TILE)
            highest = higher
    log_z = highest + tl.log(tl.where(there, total, 1.0))
    known = (target >= 0) & (target < classes)
    tl.store(LOG_Z + token, log_z, mask=there)
    tl.store(LOSSES + token, tl.where(known, log_z - own, float("nan")), mask=there)


@triton.jit
def _pull_hidden(
    HIDDEN, WEIGHT, BIAS, classes, width, TARGET, ORDER, ENDS, index, LOG_Z, GRAD, UNIT,
    PARTS, programs,
    TILE: tl.constexpr, CLASSES: tl.constexpr, DEEP: tl.constexpr, BIASED: tl.constexpr,
    PRECISION: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Some columns of the gradient of a tile of hidden states, through some classes."""
    begin, end, splits = _share(ENDS, index, classes, programs, TILE, CLASSES)
    lane = tl.arange(0, TILE)
    place = begin + tl.program_id(0) // splits * TILE + lane
    there = place < end
    if tl.max(there.to(tl.int32), 0) == 1:
        token = tl.load(ORDER + place, mask=there, other=0)
        target = tl.load(TARGET + token, mask=there, other=-1)
        log_z = tl.load(LOG_Z + token, mask=there, other=0.0)
        grad = tl.load(GRAD + token, mask=there, other=0.0)
        at = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        total = tl.zeros((TILE, COLUMNS), tl.float32)
        first = (tl.program_id(0) % splits).to(tl.int64) * CLASSES
        for start in range(first, classes, splits * CLASSES):
            column = start + tl.arange(0, CLASSES)
            score = _scores(
                HIDDEN, WEIGHT, BIAS, token, there, column, classes, width, DEEP, BIASED, PRECISION
            )
            pull = _pulls(score, column, target, log_z, grad, classes)
            mask = (column < classes)[:, None] & (at < width)[None, :]
            weight = tl.load(WEIGHT + column[:, None] * width + at[None, :], mask=mask, other=0.0)
            total = tl.dot(pull.to(weight.dtype), weight, total, input_precision=PRECISION)
        to = PARTS + (tl.program_id(0).to(tl.int64) * TILE + lane[:, None]) * width + at[None, :]
        tl.store(to, total, mask=there[:, None] & (at < width)[None, :])


@triton.jit
def _join_hidden(
    ORDER, ENDS, index, UNIT, PARTS, GRAD_HIDDEN, classes, width, programs,
    TILE: tl.constexpr, CLASSES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The sum of all programs' parts of some columns of a tile."""
    begin, end, splits = _share(ENDS, index, classes, programs, TILE, CLASSES)
    lane = tl.arange(0, TILE)
    place = begin + tl.program_id(0) * TILE + lane
    there = place < end
    if tl.max(there.to(tl.int32), 0) == 1:
        token = tl.load(ORDER + place, mask=there, other=0)
        at = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        mask = there[:, None] & (at < width)[None, :]
        total = tl.zeros((TILE, COLUMNS), tl.float32)
        for split in range(splits):
            slot = (tl.program_id(0) * splits + split).to(tl.int64) * TILE + lane
            total += tl.load(PARTS + slot[:, None] * width + at[None, :], mask=mask, other=0.0)
        scaled = (total * tl.load(UNIT)).to(GRAD_HIDDEN.dtype.element_ty)
        tl.store(GRAD_HIDDEN + token[:, None] * width + at[None, :], scaled, mask=mask)


@triton.jit
def _pull_weight(
    HIDDEN, WEIGHT, BIAS, classes, width, TARGET, ORDER, ENDS, index, LOG_Z, GRAD, UNIT,
    GRAD_WEIGHT, GRAD_BIAS,
    TILE: tl.constexpr, CLASSES: tl.constexpr, DEEP: tl.constexpr, BIASED: tl.constexpr,
    PRECISION: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Some columns of the gradient of some classes, over all tokens of the group."""
    begin = tl.load(ENDS + index - 1, mask=index > 0, other=0)
    end = tl.load(ENDS + index)
    column = tl.program_id(0).to(tl.int64) * CLASSES + tl.arange(0, CLASSES)
    at = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((CLASSES, COLUMNS), tl.float32)
    of_bias = tl.zeros((CLASSES,), tl.float32)
    for start in range(begin, end, TILE):
        place = start + tl.arange(0, TILE)
        there = place < end
        token = tl.load(ORDER + place, mask=there, other=0)
        target = tl.load(TARGET + token, mask=there, other=-1)
        log_z = tl.load(LOG_Z + token, mask=there, other=0.0)
        grad = tl.load(GRAD + token, mask=there, other=0.0)
        score = _scores(
            HIDDEN, WEIGHT, BIAS, token, there, column, classes, width, DEEP, BIASED, PRECISION
        )
        pull = _pulls(score, column, target, log_z, grad, classes)
        of_bias += tl.sum(pull, 0)
        mask = there[:, None] & (at < width)[None, :]
        hidden = tl.load(HIDDEN + token[:, None] * width + at[None, :], mask=mask, other=0.0)
        total = tl.dot(tl.trans(pull).to(hidden.dtype), hidden, total, input_precision=PRECISION)
    unit = tl.load(UNIT)
    known = column < classes
    of_rows = (total * unit).to(GRAD_WEIGHT.dtype.element_ty)
    mask = known[:, None] & (at < width)[None, :]
    tl.store(GRAD_WEIGHT + column[:, None] * width + at[None, :], of_rows, mask=mask)
    if BIASED:
        scaled = (of_bias * unit).to(GRAD_BIAS.dtype.element_ty)
        tl.store(GRAD_BIAS + column, scaled, mask=known & (tl.program_id(1) == 0))
