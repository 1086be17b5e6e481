"""Layers whose processes share the tokens of all, and score a sample that they draw alike."""

from __future__ import annotations

from abc import abstractmethod
from typing import Unpack

from torch import Tensor

from softmax_bench.classes.noise import make_noise
from softmax_bench.layers.sampled.drawing import SharedSampler
from softmax_bench.parallel.layer import ParallelOptions, ParallelOutputLayer
from softmax_bench.parallel.noise import BroadcastNoise


class ParallelSamplingLayer(ParallelOutputLayer):
    """Scores targets and a sample, of which each process has its part.

    Args:
        num_samples: Number of sampled classes, in all.
        noise: The distribution that they are drawn from.
        power: Exponent of its probabilities.
        replacement: Whether they are drawn with replacement.
        **common: As for every parallel layer.
    """

    exact = False
    touches_all_rows = False

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int,
        noise: str,
        power: float,
        replacement: bool,
        **common: Unpack[ParallelOptions],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        distribution = make_noise(noise, num_classes, self._counts, power)
        self.sampler = SharedSampler(
            BroadcastNoise(distribution, self.mesh), num_samples, replacement=replacement
        )
        self.sampler.to(self.weight.device)

    def _weighted_loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        return self._loss_of_all(*self._spread(hidden, target, coefficient))

    def _token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        return self._own(self._losses_of_all(*self._spread(hidden, target)), hidden.shape[0])

    @abstractmethod
    def _loss_of_all(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        """The loss over the tokens of all processes."""

    @abstractmethod
    def _losses_of_all(self, hidden: Tensor, target: Tensor) -> Tensor:
        """The losses of the tokens of all processes."""
