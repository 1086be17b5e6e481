"""Cross-entropy over classes that are sharded over processes, by a pass over local rows.

Each process computes the three products of :func:`softmax_bench.ops.cpu.softmax_loss.softmax_loss`
with its own rows. Between the second and the third, the normalisers are combined, so that a process
never holds N x V / P scores and sends only three numbers per token for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from softmax_bench.ops import accumulator, log_sum_exp
from softmax_bench.ops.autograd import Gradients
from softmax_bench.ops.cpu.all_classes import target_scores
from softmax_bench.ops.cpu.exponentials import LOG2_E
from softmax_bench.ops.cpu.shared_sample import column_of, join_rows, row_bias
from softmax_bench.ops.cpu.softmax_loss import softmax_loss
from softmax_bench.parallel.exchange import join_log2_sums
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
    """``-log softmax`` of each target, over all classes or over it and a sample of others.

    It is called with hidden states that all processes share, and with this process's rows and
    offsets.
    """

    vocabulary: ShardedClasses
    target: Tensor
    """(N,) class of each token."""
    block_rows: int
    """Approximate number of rows per process, which determines the blocks and must agree on all."""
    drawn: Drawn | None = None
    """None for all classes."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes, all of which must then be scored.
    """
    penalty: float = 0.0
    """Weight of the squared log-normaliser."""

    def __call__(
        self, coefficient: Tensor | None, hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Gradients]:
        """Loss of each token (N,), the same on all processes, and gradients by local rows."""
        positions, target = self.vocabulary.owned(self.target)
        owned_hidden = hidden[positions]
        target_score, target_rows = target_scores(owned_hidden, weight, bias, target)
        target_score = target_score.to(accumulator(hidden.dtype))  # autocast lowers it
        excluded = None
        scored, scored_bias = weight, bias
        if self.drawn is not None:
            target_score = target_score + self.drawn.target_offset.to(target_score.dtype)
            scored = weight.index_select(0, self.drawn.rows).to(hidden.dtype)
            scored_bias = row_bias(bias, self.drawn.rows, self.drawn.row_offset, hidden.dtype)
            excluded = torch.full_like(self.target, -1)
            excluded[positions] = column_of(target, self.drawn.rows)

        join = _Join(self, hidden, positions, target_score)
        if coefficient is None:
            log2_sum = log_sum_exp(hidden, scored, scored_bias, excluded=excluded) * LOG2_E
            log_z = join(slice(0, hidden.shape[0]), log2_sum) / LOG2_E
            return self._losses(log_z, join.scores, self._mean_scores(hidden, weight, bias)), ()

        log_z, gradients = softmax_loss(
            hidden,
            scored,
            scored_bias,
            coefficient,
            square=self.penalty * coefficient if self.penalty else None,
            excluded=excluded,
            join=join,
            block_rows=self.block_rows,
        )
        assert gradients.hidden is not None
        assert gradients.weight is not None
        share = coefficient[positions].to(target_score.dtype)
        # The target's score is among those of all classes, but not among those of a sample.
        score_gradient = (
            (self.label_smoothing - 1) * share
            if self.drawn is None
            else share * torch.expm1(target_score - log_z[positions])
        )
        score_gradient = score_gradient.to(hidden.dtype)
        gradients.hidden.index_add_(0, positions, target_rows * score_gradient.unsqueeze(1))
        of_target = owned_hidden * score_gradient.unsqueeze(1)
        weight_gradient, bias_gradient = gradients.weight, gradients.bias
        if self.drawn is not None:
            weight_gradient, bias_gradient = join_rows(
                gradients, self.drawn.rows, target, of_target, score_gradient, weight
            )
        else:
            weight_gradient.index_add_(0, target, of_target)
            if bias_gradient is not None:
                bias_gradient.index_add_(0, target, score_gradient)
        if self.label_smoothing:  # each row has a weight of 1 / V in the mean score
            of_rows = (-self.label_smoothing / self.vocabulary.num_classes) * coefficient
            of_rows = of_rows.to(hidden.dtype)
            gradients.hidden.addr_(of_rows, weight.sum(0))
            weight_gradient += of_rows @ hidden
            if bias_gradient is not None:
                bias_gradient += of_rows.sum()
        losses = self._losses(log_z, join.scores, self._mean_scores(hidden, weight, bias))
        return losses, (
            gradients.hidden,
            weight_gradient,
            None if bias is None else bias_gradient,
        )

    def _mean_scores(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """Mean score of each token over the classes of all processes."""
        if not self.label_smoothing:
            return None
        here = hidden @ weight.sum(0)
        if bias is not None:
            here = here + bias.sum()
        here = here.to(accumulator(hidden.dtype))
        dist.all_reduce(here, group=self.vocabulary.mesh.get_group())
        return here / self.vocabulary.num_classes

    def _losses(self, log_z: Tensor, scores: Tensor, mean: Tensor | None) -> Tensor:
        if mean is not None:
            scores = torch.lerp(scores, mean.to(scores.dtype), self.label_smoothing)
        losses = log_z - scores
        return losses + self.penalty * log_z.square() if self.penalty else losses


class _Join:
    """Combines the normalisers of a block of tokens, and shares the targets' scores."""

    def __init__(self, run: SoftmaxPass, hidden: Tensor, positions: Tensor, scores: Tensor) -> None:
        self._mesh = run.vocabulary.mesh
        dtype = accumulator(hidden.dtype)
        zeros = hidden.new_zeros(hidden.shape[0], dtype=dtype)
        self._owned_scores = zeros.index_copy_(0, positions, scores)
        self._log2_of_targets: Tensor | None = None
        if run.drawn is not None:  # the target enters its token's sum on the process of its class
            absent = hidden.new_full(hidden.shape[:1], -math.inf, dtype=dtype)
            self._log2_of_targets = absent.index_copy_(0, positions, scores * LOG2_E)
        self.scores = torch.empty_like(self._owned_scores)
        """(N,) score of each token's target."""

    def __call__(self, block: slice, log2_sum: Tensor) -> Tensor:
        if self._log2_of_targets is not None:
            log2_sum = torch.logaddexp2(log2_sum, self._log2_of_targets[block])
        joined, self.scores[block] = join_log2_sums(log2_sum, self._owned_scores[block], self._mesh)
        return joined
