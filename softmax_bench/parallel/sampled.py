"""Sampled softmax over classes that are sharded over processes."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from softmax_bench.layers import Cost
from softmax_bench.parallel import cost
from softmax_bench.parallel.cost import Sent
from softmax_bench.parallel.layer import ParallelOptions
from softmax_bench.parallel.losses.passes import each, weighted_sum
from softmax_bench.parallel.losses.softmax import Drawn, SoftmaxPass
from softmax_bench.parallel.noise import draw_here
from softmax_bench.parallel.sampling import ParallelSamplingLayer


class ParallelSampledSoftmax(ParallelSamplingLayer):
    """Sampled softmax with V / P classes and their part of the sample on each process.

    All processes draw the same sample, so it is the estimator of a single process, draw by draw.

    Args:
        num_samples: Classes shared by the batch (drawn, or distinct on average), in all.
        noise: As for :class:`~softmax_bench.layers.SampledSoftmax`.
        power: As for the same class.
        replacement: As for the same class.
        **common: As for every parallel layer.
    """

    name = "parallel_sampled"
    scores = "N x k, N x k / P by each process"
    source = "Jean et al. 2015; sharded as in An et al. 2021"
    good_for = "the most classes, if only training must be fast"
    step_flops = "6 N (k + 1) H / P"
    normalised = "no"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 1024,
        noise: str = "log_uniform",
        power: float = 1.0,
        replacement: bool = False,
        **common: Unpack[ParallelOptions],
    ) -> None:
        super().__init__(
            in_features,
            num_classes,
            num_samples=num_samples,
            noise=noise,
            power=power,
            replacement=replacement,
            **common,
        )

    def _loss_of_all(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        return weighted_sum(
            self._draw(target), coefficient, hidden, *self._trained(self.weight, self.bias)
        )

    def _losses_of_all(self, hidden: Tensor, target: Tensor) -> Tensor:
        return each(self._draw(target), hidden, *self._trained(self.weight, self.bias))

    def _draw(self, target: Tensor) -> SoftmaxPass:
        sample, rows = draw_here(self.sampler, self.vocabulary, target.device)
        owned, _ = self.vocabulary.owned(target)
        drawn = Drawn(
            rows,
            sample.count.log() - sample.log_expected,
            self.sampler.target_offset(target[owned], sample),
        )
        return SoftmaxPass(self.vocabulary, target, self._block_rows, drawn)

    @property
    def _block_rows(self) -> int:
        """Mean number of a sample's rows on a process."""
        return -(-self._num_samples // self.vocabulary.size)

    @property
    def _num_samples(self) -> int:
        return min(self.sampler.num_samples, self.num_classes)

    def cost(self, num_tokens: int) -> Cost:
        """Cost for one process on the tokens of all: three products with its part of the sample."""
        return cost.sampled(self._step(num_tokens), self._num_samples)

    def traffic(self, num_tokens: int) -> Sent:
        """Hidden states, their gradients, the drawn ids, and three numbers per token."""
        step = self._step(num_tokens)
        sent = cost.softmax_traffic(step, self._block_rows)
        return sent + cost.noise_traffic(step, self.sampler.num_draws)
