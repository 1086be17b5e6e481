"""Full softmax over classes that are sharded over processes."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from softmax_bench.layers import Cost
from softmax_bench.layers.all_classes import check_objective
from softmax_bench.parallel import cost
from softmax_bench.parallel.cost import Sent
from softmax_bench.parallel.layer import ParallelOptions, ParallelOutputLayer
from softmax_bench.parallel.losses.passes import each, weighted_sum
from softmax_bench.parallel.losses.softmax import SoftmaxPass


class ParallelFullSoftmax(ParallelOutputLayer):
    """Full softmax with V / P classes on each process, and exactly the loss of a single process.

    Unlike ``ColwiseParallel`` with ``loss_parallel``, it never holds N x V / P scores.

    Args:
        label_smoothing: Share of the target that is spread evenly over the classes of all
            processes.
        log_z_penalty: Weight of ``(log Z)^2``.
        **common: As for every parallel layer.
    """

    name = "parallel_full"
    scores = "all N x V, N x V / P by each process"
    source = "Shoeybi et al. 2019, section 3"
    good_for = "the exact likelihood of more classes than one device can hold or score in time"
    step_flops = "6 N V H / P"
    exact = True
    normalised = "no"
    touches_all_rows = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        label_smoothing: float = 0.0,
        log_z_penalty: float = 0.0,
        **common: Unpack[ParallelOptions],
    ) -> None:
        check_objective(label_smoothing, log_z_penalty)
        super().__init__(in_features, num_classes, **common)
        self.label_smoothing = label_smoothing
        self.log_z_penalty = log_z_penalty

    @property
    def plain(self) -> bool:
        """Whether the training objective is the likelihood alone."""
        return not self.label_smoothing and not self.log_z_penalty

    def _pass(self, target: Tensor) -> SoftmaxPass:
        return SoftmaxPass(
            self.vocabulary,
            target,
            self.vocabulary.max_rows,
            label_smoothing=self.label_smoothing,
            penalty=self.log_z_penalty,
        )

    def _loss_of_all(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        return weighted_sum(self._pass(target), coefficient, hidden, *self._rows_like(hidden))

    def _losses_of_all(self, hidden: Tensor, target: Tensor) -> Tensor:
        return each(self._pass(target), hidden, *self._rows_like(hidden))

    def _rows_like(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the dtype of the hidden states, which mixed precision has lowered."""
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        return self.weight.to(hidden.dtype), bias

    def cost(self, num_tokens: int) -> Cost:
        """Cost for one process on the tokens of all: three products with its own rows."""
        return cost.full(self._step(num_tokens))

    def traffic(self, num_tokens: int) -> Sent:
        """Hidden states, their gradients, and three numbers per token for the normaliser.

        Label smoothing takes a fourth, for the mean score.
        """
        step = self._step(num_tokens)
        sent = cost.softmax_traffic(step, self.vocabulary.max_rows)
        if self.label_smoothing:
            sent += cost.all_reduce(step.tokens * step.sum_bytes, step.processes)
        return sent
