"""Logistic losses from the scores of all pairs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.ops.dispatch import by_device
from softmax_bench.ops.pairs import pair_scores


@by_device
def pair_logistic(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: Tensor,
    offset: Tensor,
    positive_weight: float,
) -> Tensor:
    """See :func:`softmax_bench.ops.pair_logistic.pair_logistic`; differentiable."""
    tokens, pairs = rows.shape
    starts = torch.arange(tokens + 1, device=hidden.device) * pairs
    odds = pair_scores(hidden, weight, bias, starts, rows.view(-1)).view(tokens, pairs) + offset
    return positive_weight * F.softplus(-odds[:, 0]) + F.softplus(odds[:, 1:]).sum(1)
