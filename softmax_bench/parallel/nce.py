"""Noise-contrastive estimation over classes that are sharded over processes."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from softmax_bench.classes.noise import log_unigram
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import Cost
from softmax_bench.parallel import cost
from softmax_bench.parallel.cost import Sent
from softmax_bench.parallel.exchange import shared, total
from softmax_bench.parallel.layer import ParallelOptions
from softmax_bench.parallel.losses.logistic import LogisticPass
from softmax_bench.parallel.losses.passes import each, weighted_sum
from softmax_bench.parallel.losses.softmax import Drawn
from softmax_bench.parallel.noise import draw_here
from softmax_bench.parallel.sampling import ParallelSamplingLayer


class ParallelNCE(ParallelSamplingLayer):
    """Noise-contrastive estimation with V / P classes and their noise on each process.

    All processes draw the same noise, which all tokens share, so the objective equals that of a
    single process, draw by draw. Only a single number is sent for the loss itself.

    Args:
        num_samples: Noise classes k per token.
        noise: As for :class:`~softmax_bench.layers.NCE`.
        power: As for the same class.
        log_z: A number to fix it, or ``"learned"`` to make it a parameter (started at 0).
        **common: As for every parallel layer.
    """

    name = "parallel_nce"
    scores = "N x k, N x k / P by each process"
    source = "Gutmann & Hyvarinen 2012; Mnih & Teh 2012"
    good_for = "the most classes, if scores are used without a normaliser afterwards"
    step_flops = "6 N (k + 1) H / P"
    normalised = "by training"

    log_z: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 1024,
        noise: str = "unigram",
        power: float = 1.0,
        log_z: float | str = 0.0,
        **common: Unpack[ParallelOptions],
    ) -> None:
        if isinstance(log_z, str) and log_z != "learned":
            raise SoftmaxBenchError(f"log_z must be a number or 'learned', not {log_z!r}")
        self._start = 0.0 if isinstance(log_z, str) else float(log_z)
        super().__init__(
            in_features,
            num_classes,
            num_samples=num_samples,
            noise=noise,
            power=power,
            replacement=True,
            **common,
        )
        start = torch.tensor(self._start, dtype=self.weight.dtype)
        if isinstance(log_z, str):
            self.log_z = nn.Parameter(start)
        else:
            self.register_buffer("log_z", start)
        self.to(self.weight.device)

    def _initial_bias(self) -> Tensor:
        return log_unigram(self._counts, self.num_classes) + self._start

    def _loss_of_all(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        part = weighted_sum(self._draw(target), coefficient, hidden, *self._operands())
        return total(part, self.mesh)

    def _losses_of_all(self, hidden: Tensor, target: Tensor) -> Tensor:
        return total(each(self._draw(target), hidden, *self._operands()), self.mesh)

    def _operands(self) -> tuple[Tensor | None, ...]:
        return *self._trained(self.weight, self.bias), shared(self.log_z, self.mesh)

    def _draw(self, target: Tensor) -> LogisticPass:
        sample, rows = draw_here(self.sampler, self.vocabulary, target.device)
        owned, _ = self.vocabulary.owned(target)
        of_target = self.sampler.log_expected_count(target[owned])
        drawn = Drawn(rows, -sample.log_expected, -of_target)
        return LogisticPass(self.vocabulary, target, drawn, sample.count)

    def _self_normalized(self, scores: Tensor) -> Tensor:
        return scores - self.log_z

    def cost(self, num_tokens: int) -> Cost:
        """Cost for one process on the tokens of all: three products with its part of the noise."""
        return cost.sampled(self._step(num_tokens), self.sampler.num_samples, learned=self._learned)

    def traffic(self, num_tokens: int) -> Sent:
        """Hidden states, their gradients, the drawn ids and the loss."""
        step = self._step(num_tokens)
        return cost.logistic_traffic(step, learned=self._learned) + cost.noise_traffic(
            step, self.sampler.num_draws
        )

    @property
    def _learned(self) -> bool:
        return isinstance(self.log_z, nn.Parameter)
