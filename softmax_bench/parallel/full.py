"""Full softmax over classes that are divided over processes."""

from __future__ import annotations

from torch import Tensor

from softmax_bench.layers import Cost
from softmax_bench.parallel import cost
from softmax_bench.parallel.cost import Sent
from softmax_bench.parallel.layer import ParallelOutputLayer
from softmax_bench.parallel.passes import each, weighted_sum
from softmax_bench.parallel.softmax import SoftmaxPass


class ParallelFullSoftmax(ParallelOutputLayer):
    """Full softmax, each process with V / P of the classes: exactly the loss of one process.

    Unlike ``ColwiseParallel`` with ``loss_parallel`` it never holds N x V / P scores.
    """

    name = "parallel_full"
    scores = "all N x V, N x V / P by each process"
    source = "Shoeybi et al. 2019, section 3"
    good_for = "the exact likelihood of more classes than one device can hold or score in time"
    step_flops = "6 N V H / P"
    exact = True
    normalised = "no"
    touches_all_rows = True

    def _weighted_loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        run = SoftmaxPass(self.vocabulary, target, self.vocabulary.most_rows)
        return weighted_sum(run, coefficient, hidden, *self._rows_like(hidden))

    def _each_loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        return each(
            SoftmaxPass(self.vocabulary, target, self.vocabulary.most_rows),
            hidden,
            *self._rows_like(hidden),
        )

    def _rows_like(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the type of the hidden states, which mixed precision has lowered."""
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        return self.weight.to(hidden.dtype), bias

    def cost(self, num_tokens: int) -> Cost:
        """Of one process, on the tokens of all: three products with its own rows."""
        return cost.full(self._step(num_tokens))

    def traffic(self, num_tokens: int) -> Sent:
        """Hidden states, their gradients, and three numbers a token for the normaliser."""
        return cost.softmax_traffic(self._step(num_tokens), self.vocabulary.most_rows)
