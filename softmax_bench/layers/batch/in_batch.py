"""In-batch softmax: the targets of the other tokens are the negatives."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from softmax_bench.classes.noise import expected_distinct
from softmax_bench.layers.base import CommonOptions, log_unigram, unigram
from softmax_bench.layers.batch.ignored import count_of_kept, of_kept_classes
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.ops import subset_cross_entropy, subset_scores, tally


class InBatchSoftmax(LinearOutputLayer):
    """Sampled softmax whose sample is the batch's own targets.

    ``log(exp(s_t) + sum over the others j of exp(s_j) (1 - p_t) / (n_t p_j)) - s_t``, where n_t
    tokens have another target than t. Nothing is drawn: a batch of data is a sample from the data's
    own distribution p, whose probabilities come from ``class_counts`` (logQ correction; Yi et al.
    2019, with the target's score left as it is, because the target is there with certainty).
    Without the correction frequent classes are negatives so often that they are predicted too
    rarely.

    Args:
        correction: Whether to weight by p; without, ``log(exp(s_t) + sum exp(s_j)) - s_t``.
        **common: As for every output layer.
    """

    name = "in_batch"
    scores = "N x the distinct targets of the batch"
    source = "Hidasi et al. 2016; Yi et al. 2019"
    good_for = "recommenders whose rows come from a network and are made for the batch anyway"
    step_flops = "6 N (N' + 1) H, N' the distinct targets"
    exact = False
    normalised = "no"
    touches_all_rows = False
    sees_other_tokens = True

    log_p: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        correction: bool = True,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        self.correction = correction
        self.register_buffer("log_p", log_unigram(self._counts, num_classes), persistent=False)
        self.to(self.weight.device)

    def _batch(self, target: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The targets that are kept, what to add to their scores, and to each token's own score."""
        rows, count = tally(target)
        count = count_of_kept(rows, count, target, kept)
        offset, own_offset = count.double().log(), torch.zeros_like(self.log_p[target])
        if self.correction:
            others = torch.log1p(-self.log_p[target].exp().clamp(max=1 - 1e-12))
            offset = offset - self.log_p[rows]
            alike = count[torch.searchsorted(rows, target)]
            own_offset = (kept.sum() - alike).clamp(min=1).log() - others
        return rows, offset, own_offset

    def _loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        kept = coefficient != 0
        target = of_kept_classes(target, kept)
        rows, offset, own_offset = self._batch(target, kept)
        return subset_cross_entropy(
            hidden,
            *self._trained(self.weight, self.bias),
            target,
            coefficient,
            rows,
            offset,
            own_offset.to(hidden.dtype),
        )

    def _losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        kept = torch.ones_like(target, dtype=torch.bool)
        rows, offset, own_offset = self._batch(target, kept)
        own, scores = subset_scores(hidden, *self._trained(self.weight, self.bias), target, rows)
        own = own + own_offset.to(own.dtype)
        scores = scores + offset.to(own.dtype)
        scores = scores.masked_fill(rows == target.unsqueeze(1), -torch.inf)
        return torch.logaddexp(own, scores.logsumexp(1)) - own

    def flops(self, num_tokens: int) -> float:
        """Three products over the distinct targets that p leads to expect."""
        return 6.0 * num_tokens * (self.rows_touched(num_tokens) + 1) * self.in_features

    def rows_touched(self, num_tokens: int) -> float:
        """The distinct targets."""
        return expected_distinct((unigram(self._counts, self.num_classes), num_tokens))
