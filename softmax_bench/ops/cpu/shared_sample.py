"""Loss and gradients of one gathered sample of rows, by dense products in tiles."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.ops.autograd import Gradients as OfOperands
from softmax_bench.ops.cpu.all_classes import target_scores
from softmax_bench.ops.cpu.exponentials import LOG2_E, accumulator
from softmax_bench.ops.cpu.softmax_loss import (
    Gradients,
    class_tiles,
    softmax_loss,
    token_blocks,
)
from softmax_bench.ops.cpu.workspace import workspace
from softmax_bench.ops.dispatch import by_device
from softmax_bench.ops.rows import distinct, row_sparse

BLACKOUT_BOUND = 1e-6
"""Least probability that BlackOut leaves to the other classes; its loss would be infinite at 0."""


@by_device
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
) -> tuple[Tensor, OfOperands]:
    """Loss, and its gradients in ``hidden``, ``weight`` and ``bias``."""
    own, own_rows = target_scores(hidden, weight, bias, target)
    own = own + target_offset
    log_z, gradients = softmax_loss(
        hidden,
        weight.index_select(0, rows).to(hidden.dtype),
        row_bias(bias, rows, row_offset, hidden.dtype),
        coefficient,
        first=own,
        excluded=None if keep_hits else column_of(target, rows),
        square=penalty * coefficient if penalty else None,
    )
    losses = log_z - own
    pull = torch.expm1(-losses)  # d loss / d own score: p_target - 1
    if penalty:
        pull += 2 * penalty * log_z * torch.exp(-losses)
        losses = losses + penalty * log_z.square()
    pull = (pull * coefficient).to(hidden.dtype)
    loss = torch.dot(losses, coefficient.to(losses.dtype))
    return loss, _with_targets(gradients, pull, own_rows, hidden, weight, bias, rows, target)


@by_device
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
) -> tuple[Tensor, OfOperands]:
    """Loss, and its gradients in ``hidden``, ``weight`` and ``bias``."""
    own, own_rows = target_scores(hidden, weight, bias, target)
    own = own + target_offset
    sampled = weight.index_select(0, rows).to(hidden.dtype)
    offset = row_bias(bias, rows, row_offset, hidden.dtype)
    scores = torch.addmm(offset, hidden, sampled.t()).to(own.dtype)
    scores.masked_fill_(rows == target.unsqueeze(1), -torch.inf)
    count = row_count.to(own.dtype)
    log_z = torch.logaddexp(own, (scores + count.log()).logsumexp(1))
    p = scores.sub_(log_z.unsqueeze(1)).exp_()
    bounded = p.clamp(max=1 - BLACKOUT_BOUND)
    losses = log_z - own - torch.log1p(-bounded) @ count
    odds = torch.where(p < 1 - BLACKOUT_BOUND, bounded / (1 - bounded), 0)
    pull_z = 1 - odds @ count
    share = coefficient.to(own.dtype)
    pulls = odds.addcmul_(p, pull_z.unsqueeze(1)).mul_(count).mul_(share.unsqueeze(1))
    pulls = pulls.to(hidden.dtype)
    own_pull = (share * (pull_z * torch.exp(own - log_z) - 1)).to(hidden.dtype)
    gradients = Gradients(pulls @ sampled, pulls.t() @ hidden, pulls.sum(0))
    loss = torch.dot(losses, share)
    return loss, _with_targets(gradients, own_pull, own_rows, hidden, weight, bias, rows, target)


@by_device
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
) -> tuple[Tensor, OfOperands]:
    """Loss, and its gradients in ``hidden``, ``weight``, ``bias`` and ``log_z``."""
    own, own_rows = target_scores(hidden, weight, bias, target)
    own = own - log_z + target_offset
    noise_loss, gradients = logistic_noise(
        hidden,
        weight.index_select(0, rows).to(hidden.dtype),
        row_bias(bias, rows, row_offset - log_z, hidden.dtype),
        coefficient,
        row_count,
    )
    assert gradients.bias is not None
    pull = (-torch.sigmoid(-own) * coefficient).to(hidden.dtype)
    # log_z enters every score like a bias shared by all classes, with the opposite sign.
    log_z_gradient = -(gradients.bias.sum() + pull.sum()).to(log_z.dtype)
    joined = _with_targets(gradients, pull, own_rows, hidden, weight, bias, rows, target)
    loss = torch.dot(F.softplus(-own) + noise_loss, coefficient.to(own.dtype))
    return loss, (*joined, log_z_gradient)


def _with_targets(
    sample: Gradients,
    pull: Tensor,
    own_rows: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: Tensor,
    target: Tensor,
) -> OfOperands:
    """Gradients of sample and targets together; ``pull`` is that in the targets' scores."""
    assert sample.hidden is not None
    column = pull.unsqueeze(1)
    sample.hidden.addcmul_(own_rows, column)
    of_weight, of_bias = join_rows(sample, rows, target, hidden * column, pull, weight)
    return sample.hidden, of_weight, None if bias is None else of_bias


def join_rows(
    sample: Gradients,
    rows: Tensor,
    target: Tensor,
    target_weight: Tensor,
    target_bias: Tensor,
    like: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Row-sparse gradients of weight and bias, with the dtype and number of rows of the weight."""
    assert sample.weight is not None
    assert sample.bias is not None
    touched, place = distinct(torch.cat([rows, target]))
    of_sample, of_target = place[: rows.shape[0]], place[rows.shape[0] :]
    dtype, num_classes = like.dtype, like.shape[0]
    weight = like.new_zeros(touched.shape[0], like.shape[1])
    weight.index_copy_(0, of_sample, sample.weight.to(dtype))  # distinct rows need no sum
    weight.index_add_(0, of_target, target_weight.to(dtype))
    bias = like.new_zeros(touched.shape[0])
    bias.index_copy_(0, of_sample, sample.bias.to(dtype))
    bias.index_add_(0, of_target, target_bias.to(dtype))
    return row_sparse(touched, weight, num_classes), row_sparse(touched, bias, num_classes)


def row_bias(bias: Tensor | None, rows: Tensor, row_offset: Tensor, dtype: torch.dtype) -> Tensor:
    """Offset of each sampled row: its bias, if any, and its correction."""
    offset = row_offset if bias is None else bias.index_select(0, rows) + row_offset
    return offset.to(dtype)


def column_of(target: Tensor, rows: Tensor) -> Tensor:
    """Position of each target among the sorted ``rows``, or -1."""
    if rows.shape[0] == 0:
        return torch.full_like(target, -1)
    place = torch.searchsorted(rows, target).clamp_(max=rows.shape[0] - 1)
    return torch.where(rows.index_select(0, place) == target, place, -1)


def logistic_noise(
    hidden: Tensor, weight: Tensor, bias: Tensor, coefficient: Tensor, count: Tensor
) -> tuple[Tensor, Gradients]:
    """``sum_j count_j softplus(h_n . w_j + b_j)`` of each token, and the weighted gradients.

    The coefficients are known before the scores are computed, so a tile is used while it is in
    cache, and nothing of size N x S is stored.
    """
    dtype = hidden.dtype
    sums = accumulator(dtype)
    count = count.to(dtype)
    counted_weight = weight * count.unsqueeze(1)
    scaled_hidden = hidden * coefficient.to(dtype).unsqueeze(1)
    hidden, bias = hidden * LOG2_E, bias * LOG2_E  # exp2 takes a third of exp's time
    loss = torch.zeros(hidden.shape[0], dtype=sums, device=hidden.device)
    grad_hidden = torch.zeros(hidden.shape, dtype=sums, device=hidden.device)
    grad_weight = torch.zeros_like(weight)
    grad_bias = torch.zeros_like(bias)
    for block in token_blocks(hidden.shape[0], weight.shape[0]):
        tokens = block.stop - block.start
        for tile in class_tiles(tokens, weight.shape[0], hidden.device):
            width = tile.stop - tile.start
            buffer = workspace(2 * tokens * width, dtype, hidden.device)
            scores = buffer[: tokens * width].view(tokens, width)
            losses = buffer[tokens * width :].view(tokens, width)
            torch.addmm(bias[tile], hidden[block], weight[tile].t(), out=scores)
            odds = _odds_and_losses(scores, losses)
            loss[block] += losses @ count[tile]
            pulls = odds.div_(torch.add(odds, 1, out=losses))
            if sums == dtype:
                grad_hidden[block].addmm_(pulls, counted_weight[tile])
            else:
                grad_hidden[block] += pulls @ counted_weight[tile]
            grad_weight[tile].addmm_(pulls.t(), scaled_hidden[block])
            grad_bias[tile].addmv_(pulls.t(), coefficient[block].to(dtype))
    grad_hidden.mul_(coefficient.to(sums).unsqueeze(1))
    grad_weight.mul_(count.unsqueeze(1))
    grad_bias.mul_(count)
    return loss, Gradients(grad_hidden.to(dtype), grad_weight, grad_bias)


_LARGE = 60.0
"""From here on, ``log(1 + 2^x)`` equals ``x log 2`` to the last bit of a float64."""


def _odds_and_losses(scores: Tensor, losses: Tensor) -> Tensor:
    """Turn base-two log odds into odds, in place, and write ``log(1 + odds)`` into ``losses``.

    This takes two thirds of the time of torch's softplus and sigmoid, which compute two
    exponentials.
    """
    beyond = None
    # On a CPU, checking for such large values is cheaper than computing with them.
    if scores.device.type != "cpu" or (scores.numel() and float(scores.amax()) > _LARGE):
        beyond = (scores - _LARGE).clamp_(min=0).div_(LOG2_E)
    odds = scores.clamp_(max=_LARGE).exp2_()
    torch.log1p(odds, out=losses)
    if beyond is not None:
        losses.add_(beyond)
    return odds
