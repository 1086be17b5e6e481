"""Logistic loss of targets and noise whose classes are sharded over processes.

There is no normaliser, so a process computes its part of the loss without the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.ops.autograd import Gradients
from softmax_bench.ops.cpu.all_classes import target_scores
from softmax_bench.ops.cpu.shared_sample import join_rows, logistic_noise, row_bias
from softmax_bench.parallel.losses.softmax import Drawn
from softmax_bench.parallel.vocabulary import ShardedClasses


@dataclass(frozen=True)
class LogisticPass:
    """This process's part of ``softplus(-x_target) + sum_j count_j softplus(x_j)`` of each token.

    The log odds are ``x = s - log_z + offset``.
    """

    vocabulary: ShardedClasses
    target: Tensor
    """(N,) class of each token."""
    drawn: Drawn
    row_count: Tensor
    """(S,) how often each row was drawn."""

    def __call__(
        self,
        coefficient: Tensor | None,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        log_z: Tensor,
    ) -> tuple[Tensor, Gradients]:
        """Part of each token's loss (N,), and the gradients of all parts that are computed here."""
        if coefficient is None:  # for the losses alone, any weights would do
            coefficient = hidden.new_ones(hidden.shape[0])
        positions, target = self.vocabulary.owned(self.target)
        owned_hidden, rows = hidden[positions], self.drawn.rows
        target_score, target_rows = target_scores(owned_hidden, weight, bias, target)
        target_score = target_score - log_z + self.drawn.target_offset.to(target_score.dtype)
        losses, gradients = logistic_noise(
            hidden,
            weight.index_select(0, rows).to(hidden.dtype),
            row_bias(bias, rows, self.drawn.row_offset - log_z, hidden.dtype),
            coefficient,
            self.row_count,
        )
        assert gradients.hidden is not None
        assert gradients.bias is not None
        losses.index_add_(0, positions, F.softplus(-target_score).to(losses.dtype))
        score_gradient = (-torch.sigmoid(-target_score) * coefficient[positions]).to(hidden.dtype)
        gradients.hidden.index_add_(0, positions, target_rows * score_gradient.unsqueeze(1))
        log_z_gradient = -(gradients.bias.sum() + score_gradient.sum()).to(log_z.dtype)
        weight_gradient, bias_gradient = join_rows(
            gradients,
            rows,
            target,
            owned_hidden * score_gradient.unsqueeze(1),
            score_gradient,
            weight,
        )
        return losses, (
            gradients.hidden,
            weight_gradient,
            None if bias is None else bias_gradient,
            log_z_gradient,
        )
