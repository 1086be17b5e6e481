"""Full softmax over classes that are sharded over processes."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from softmax_bench.layers import Cost, FullSoftmax
from softmax_bench.layers.all_classes import AllClassesOptions
from softmax_bench.ops.autograd import fused_loss, weighted_loss
from softmax_bench.parallel import cost
from softmax_bench.parallel.cost import Sent
from softmax_bench.parallel.layer import ParallelOptions, ParallelOutputLayer
from softmax_bench.parallel.losses.full import FullPass


class ParallelFullOptions(AllClassesOptions, ParallelOptions, total=False):
    """Constructor arguments of the layer."""


class ParallelFullSoftmax(FullSoftmax, ParallelOutputLayer):
    """Full softmax with V / P classes on each process, and exactly the loss of a single process.

    Unlike ``ColwiseParallel`` with ``loss_parallel``, it never holds N x V / P scores. With a
    ``soft_cap``, and for ``token_statistics``, the backward computes the scores again, which is a
    fourth product.

    Args:
        **options: As for full softmax, except ``save_memory``, and as for every parallel layer.
    """

    name = "parallel_full"
    scores = "all N x V, N x V / P by each process"
    source = "Shoeybi et al. 2019, section 3"
    good_for = "the exact likelihood of more classes than one device can hold or score in time"
    step_flops = "6 N V H / P"
    traceable = False
    options_type = AllClassesOptions

    def __init__(
        self, in_features: int, num_classes: int, **options: Unpack[ParallelFullOptions]
    ) -> None:
        super().__init__(in_features, num_classes, **options)  # type: ignore[misc]
        self.to(self.weight.device)

    def _weighted_loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        if self._cap:
            return self._sum(self._token_losses(hidden, target) * coefficient)
        of_all, targets, weights = self._spread(hidden, target, coefficient)
        bias, dtype = self.offsets(), of_all.dtype
        rows = self.weight.to(dtype)  # mixed precision has lowered the hidden states
        bias = None if bias is None else bias.to(dtype)
        objective = self._objective(hidden)

        def loss(shares: Tensor) -> Tensor:
            run = FullPass(self.vocabulary, targets, shares, objective)
            return fused_loss(run, of_all, rows, bias)

        return weighted_loss(loss, weights, dtype)

    def cost(self, num_tokens: int) -> Cost:
        """Cost for one process on the tokens of all: three products with its own rows."""
        return cost.full(self._step(num_tokens), products=4 if self._cap else 3)

    def traffic(self, num_tokens: int) -> Sent:
        """Hidden states, their gradients, and three numbers per token for the normaliser.

        Label smoothing takes a fourth, for the mean score.
        """
        step, smoothing = self._step(num_tokens), bool(self.label_smoothing)
        if self._cap:
            return cost.sums_traffic(step, numbers=2 + smoothing)
        sent = cost.softmax_traffic(step, self.vocabulary.max_rows)
        if smoothing:
            sent += cost.all_reduce(step.tokens * step.sum_bytes, step.processes)
        return sent
