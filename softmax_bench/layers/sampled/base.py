"""Shared by layers that score all tokens of a batch against the same few classes."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softmax_bench.layers.batch.ignored import of_kept_classes
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.options import Normalised
from softmax_bench.ops import subset_cross_entropy, subset_scores


class Negatives(NamedTuple):
    """The classes that targets are scored against, and corrections of the scores."""

    rows: Int[Tensor, "S"]
    """Distinct and sorted class ids."""
    offset: Float[Tensor, "S"]
    """Added to their scores; ``-inf`` for a class that does not count."""
    target_offset: Float[Tensor, "N"]
    """Added to the score of each token's target."""


class SharedNegativesSoftmax(LinearOutputLayer):
    """``log(exp(x_t) + sum over the negatives j != t of exp(x_j)) - x_t``, x the corrected scores.

    All tokens share the negatives. A token leaves out its own target, unless ``keep_hits``.
    """

    exact = False
    normalised: ClassVar[Normalised] = "no"
    touches_all_rows = False
    keep_hits = False
    penalty = 0.0
    """Weight of the squared log of the sum."""

    @abstractmethod
    def _negatives(self, target: Tensor, kept: Tensor) -> Negatives:
        """The negatives for targets (N,); those that are not ``kept`` (N,) do not count.

        If ``sees_other_tokens``, these have the class of a target that is kept.
        """

    def _weighted_loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        kept = coefficient != 0
        if self.sees_other_tokens:
            target = of_kept_classes(target, kept)
        negatives = self._negatives(target, kept)
        return subset_cross_entropy(
            hidden,
            *self._trained(self.weight, self.bias),
            target,
            coefficient,
            negatives.rows,
            negatives.offset,
            negatives.target_offset.to(hidden.dtype),
            keep_hits=self.keep_hits,
            penalty=self.penalty,
        )

    def _token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        rows, offset, target_offset = self._negatives(target, torch.ones_like(target).bool())
        own, scores = subset_scores(hidden, *self._trained(self.weight, self.bias), target, rows)
        own = own + target_offset.to(own.dtype)
        scores = scores + offset.to(own.dtype)
        if not self.keep_hits:
            scores = scores.masked_fill(rows == target.unsqueeze(1), -torch.inf)
        log_z = torch.logaddexp(own, scores.logsumexp(1))
        return log_z - own + (self.penalty * log_z.square() if self.penalty else 0)
