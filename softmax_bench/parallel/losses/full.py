"""Cross-entropy over all classes, which are sharded over processes, by a pass over local rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from softmax_bench.ops.autograd import Gradients, Wanted
from softmax_bench.ops.cpu.all_classes import MeanRow, add_linear, target_scores
from softmax_bench.ops.cpu.softmax_loss import softmax_loss
from softmax_bench.ops.objective import Objective, TokenSums
from softmax_bench.parallel.losses.join import Join
from softmax_bench.parallel.vocabulary import ShardedClasses


@dataclass(frozen=True)
class FullPass:
    """``sum_n coefficient_n loss_n`` over the tokens of all processes.

    This is :func:`softmax_bench.ops.cpu.all_classes.cross_entropy` with the normalisers, the
    targets' scores and the mean scores of all processes.
    """

    vocabulary: ShardedClasses
    target: Tensor
    """(N,) class of each token."""
    coefficient: Tensor
    """(N,) weight of each token."""
    objective: Objective
    """Of all classes, without a soft cap."""

    def __call__(
        self, wanted: Wanted, hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Gradients]:
        """The loss, the same on all processes, and gradients by local rows."""
        objective, classes = self.objective, self.vocabulary
        here, target = classes.located(self.target)
        target_score, target_rows = target_scores(hidden, weight, bias, target)
        target_score = torch.where(here, target_score, 0.0)
        linear = objective._replace(penalty=0.0)  # whose gradients depend on log Z
        pulls = linear.pulls(TokenSums(target_score, target_score), self.target, self.coefficient)
        pulls = pulls._replace(target_score=torch.where(here, pulls.target_score, 0.0))
        mean_row = mean_score = None
        if objective.label_smoothing:
            of_classes = objective.class_weight
            of_rows = None if of_classes is None else classes.shard(of_classes)
            mean_row = MeanRow(weight, bias, of_rows, classes.num_classes)
            mean_score = mean_row.scores(hidden)
            dist.all_reduce(mean_score, group=classes.mesh.get_group())
        join = Join(target_score, classes.mesh)
        log_z, gradients = softmax_loss(
            hidden,
            weight,
            bias,
            pulls.log_z,
            square=objective.penalty * self.coefficient if objective.penalty else None,
            wanted=wanted,
            join=join,
            block_rows=classes.max_rows,
        )
        add_linear(gradients, pulls, hidden, target, target_rows, mean_row)
        losses = objective.losses(TokenSums(join.scores, log_z, mean_score), self.target)
        loss = torch.dot(losses, self.coefficient.to(losses.dtype))
        return loss, (gradients.hidden, gradients.weight, gradients.bias)
