"""Cross-entropy over a sample of classes that are sharded over processes.

Each process computes the three products of :func:`softmax_bench.ops.cpu.softmax_loss.softmax_loss`
with its own rows. Between the second and the third, the normalisers are combined, so that a process
sends only three numbers per token for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from softmax_bench.ops import accumulator, log_sum_exp
from softmax_bench.ops.autograd import Gradients
from softmax_bench.ops.cpu.all_classes import target_scores
from softmax_bench.ops.cpu.exponentials import LOG2_E
from softmax_bench.ops.cpu.shared_sample import column_of, join_rows, row_bias
from softmax_bench.ops.cpu.softmax_loss import softmax_loss
from softmax_bench.parallel.losses.join import Join
from softmax_bench.parallel.vocabulary import ShardedClasses


@dataclass(frozen=True)
class Drawn:
    """The rows of a sample of classes that this process has."""

    rows: Tensor
    """(S,) distinct and sorted; may be empty."""
    row_offset: Tensor
    """(S,) added to the scores of each row."""
    target_offset: Tensor
    """(M,) added to the scores of this process's targets."""


@dataclass(frozen=True)
class SoftmaxPass:
    """``-log softmax`` of each target, over it and a sample of other classes.

    It is called with hidden states that all processes share, and with this process's rows and
    offsets.
    """

    vocabulary: ShardedClasses
    target: Tensor
    """(N,) class of each token."""
    block_rows: int
    """Approximate number of rows per process, which determines the blocks and must agree on all."""
    drawn: Drawn

    def __call__(
        self, coefficient: Tensor | None, hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Gradients]:
        """Loss of each token (N,), the same on all processes, and gradients by local rows."""
        positions, target = self.vocabulary.owned(self.target)
        owned_hidden, drawn = hidden[positions], self.drawn
        target_score, target_rows = target_scores(owned_hidden, weight, bias, target)
        sums = accumulator(hidden.dtype)
        target_score = target_score.to(sums) + drawn.target_offset.to(sums)  # autocast lowers it
        scored = weight.index_select(0, drawn.rows).to(hidden.dtype)
        scored_bias = row_bias(bias, drawn.rows, drawn.row_offset, hidden.dtype)
        excluded = torch.full_like(self.target, -1)
        excluded[positions] = column_of(target, drawn.rows)
        owned_scores = hidden.new_zeros(hidden.shape[0], dtype=sums).index_copy(
            0, positions, target_score
        )
        # The target enters its token's sum on the process of its class.
        besides = torch.full_like(owned_scores, -math.inf).index_copy_(
            0, positions, target_score * LOG2_E
        )
        join = Join(owned_scores, self.vocabulary.mesh, besides)
        if coefficient is None:
            log2_sum = log_sum_exp(hidden, scored, scored_bias, excluded=excluded) * LOG2_E
            log_z = join(slice(0, hidden.shape[0]), log2_sum) / LOG2_E
            return log_z - join.scores, ()

        log_z, gradients = softmax_loss(
            hidden,
            scored,
            scored_bias,
            coefficient,
            excluded=excluded,
            join=join,
            block_rows=self.block_rows,
        )
        assert gradients.hidden is not None
        # The target's score is not among those of the sample.
        score_gradient = coefficient[positions].to(sums) * torch.expm1(
            target_score - log_z[positions]
        )
        score_gradient = score_gradient.to(hidden.dtype)
        gradients.hidden.index_add_(0, positions, target_rows * score_gradient.unsqueeze(1))
        weight_gradient, bias_gradient = join_rows(
            gradients,
            drawn.rows,
            target,
            owned_hidden * score_gradient.unsqueeze(1),
            score_gradient,
            weight,
        )
        return log_z - join.scores, (
            gradients.hidden,
            weight_gradient,
            None if bias is None else bias_gradient,
        )
