"""The primitives as plain formulas: slow, memory-hungry, and differentiated by autograd.

The tests compare every fast primitive with these in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.ops.objective import Terms, TokenSums


def linear_nll(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
    """``-log softmax(h W^T + b)[target]`` of each token, via all N x V scores."""
    return F.cross_entropy(F.linear(hidden, weight, bias), target, reduction="none")


def log_normalizer(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``log sum exp(h W^T + b)`` of each token, via all N x V scores."""
    return F.linear(hidden, weight, bias).logsumexp(1)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    *,
    penalty: float = 0.0,
    label_smoothing: float = 0.0,
    soft_cap: float = 0.0,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Torch's own cross-entropy of all N x V scores, and the penalty."""
    scores = F.linear(hidden, weight, bias)
    if soft_cap:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    losses = F.cross_entropy(
        scores, target, class_weight, reduction="none", label_smoothing=label_smoothing
    )
    return (coefficient * (losses + penalty * scores.logsumexp(1) ** 2)).sum()


def token_sums(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, terms: Terms
) -> TokenSums:
    """All sums of all N x V scores."""
    scores = F.linear(hidden, weight, bias)
    if terms.soft_cap:
        scores = terms.soft_cap * torch.tanh(scores / terms.soft_cap)
    class_weight = 1.0 if terms.class_weight is None else terms.class_weight
    return TokenSums(
        scores.gather(1, target.unsqueeze(1)).squeeze(1),
        scores.logsumexp(1),
        (scores * class_weight).mean(1),
        (scores.softmax(1) * scores).sum(1),
        scores.argmax(1),
    )


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
    keep_hits: bool = False,
    penalty: float = 0.0,
) -> Tensor:
    """Cross-entropy of the target's score against it and the sampled scores."""
    scores = F.linear(hidden, weight, bias)
    own = scores.gather(1, target.unsqueeze(1)) + target_offset.unsqueeze(1)
    sampled = scores[:, rows] + row_offset
    if not keep_hits:
        sampled = sampled.masked_fill(rows == target.unsqueeze(1), -torch.inf)
    scores = torch.cat([own, sampled], 1)
    log_z = scores.logsumexp(1)
    return (coefficient * (log_z - own[:, 0] + penalty * log_z**2)).sum()


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
) -> Tensor:
    """Binary cross-entropy of target against noise."""
    scores = F.linear(hidden, weight, bias) - log_z
    own = scores.gather(1, target.unsqueeze(1)).squeeze(1) + target_offset
    noise = F.softplus(scores[:, rows] + row_offset) @ row_count
    return (coefficient * (F.softplus(-own) + noise)).sum()


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
) -> Tensor:
    """BlackOut's loss, from the probabilities of target and sample."""
    scores = F.linear(hidden, weight, bias)
    own = scores.gather(1, target.unsqueeze(1)).squeeze(1) + target_offset
    hit = rows == target.unsqueeze(1)
    powers = (scores[:, rows] + row_offset).exp().masked_fill(hit, 0)
    z = own.exp() + powers @ row_count
    p = (powers / z.unsqueeze(1)).clamp(max=1 - 1e-6)
    return (coefficient * (z.log() - own - torch.log1p(-p) @ row_count)).sum()


def pair_logistic(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: Tensor,
    offset: Tensor,
    positive_weight: float = 1.0,
) -> Tensor:
    """Logistic losses of pairs, selected from all N x V scores."""
    odds = F.linear(hidden, weight, bias).gather(1, rows) + offset
    return positive_weight * F.softplus(-odds[:, 0]) + F.softplus(odds[:, 1:]).sum(1)


def pair_scores(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, starts: Tensor, rows: Tensor
) -> Tensor:
    """Scores of pairs, selected from all N x V scores."""
    tokens = torch.arange(hidden.shape[0]).repeat_interleave(starts.diff())
    return F.linear(hidden, weight, bias)[tokens, rows]


def group_nll(
    hidden: Tensor,
    projection: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    group: Tensor,
    index: int,
) -> Tensor:
    """``-log softmax`` of all tokens, 0 for those that are not in the group."""
    own = torch.where(group == index, target, 0)
    losses = linear_nll(F.linear(hidden, projection), weight, bias, own)
    return torch.where(group == index, losses, 0)


def subset_scores(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores of the targets and of the shared rows, selected from all N x V scores."""
    scores = F.linear(hidden, weight, bias)
    return scores.gather(1, target.unsqueeze(1)).squeeze(1), scores[:, rows]


def block_scores(hidden: Tensor, weight: Tensor, bias: Tensor | None, block: Tensor) -> Tensor:
    """Scores of each token's own block, selected from the scores of all blocks."""
    scores = torch.einsum("nh,cbh->ncb", hidden, weight)
    scores = scores if bias is None else scores + bias
    return scores[torch.arange(hidden.shape[0]), block]


def block_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    row: Tensor,
    coefficient: Tensor,
    num_rows: int,
) -> Tensor:
    """Cross-entropy of each row among those of its block, token by token."""
    loss = 0 * hidden.sum()
    size = weight.shape[1]
    for h, r, c in zip(hidden, row.tolist(), coefficient, strict=True):
        block = r // size
        scores = weight[block] @ h if bias is None else weight[block] @ h + bias[block]
        present = scores[: num_rows - block * size]
        loss = loss - c * present.log_softmax(0)[r - block * size]
    return loss
