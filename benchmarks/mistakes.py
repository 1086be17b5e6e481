"""Output layers with mistakes that are often made, to show what each costs (docs/claims.md).

A study names them as any layer of one's own: ``layers = ["benchmarks.mistakes:NCEFromZero"]``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softmax_bench.layers import NCE, SampledSoftmax
from softmax_bench.ops import subset_cross_entropy


class NCEFromZero(NCE):
    """NCE with Z fixed to 1 whose bias starts at 0: its first Z is about V."""

    name = "nce_from_zero"

    def _initial_bias(self) -> Tensor:
        return torch.zeros(self.num_classes)


class NCEFromUniform(NCE):
    """NCE with Z fixed to 1 whose bias starts at -log V: normalised, but not by frequency."""

    name = "nce_from_uniform"

    def _initial_bias(self) -> Tensor:
        return torch.full((self.num_classes,), -math.log(self.num_classes))


class SampledUncorrected(SampledSoftmax):
    """Sampled softmax that takes its sample's scores as they are (no logQ correction)."""

    name = "sampled_uncorrected"
    sign = 0.0
    """Of the log of the expected count, which belongs subtracted."""

    def _loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        sample = self.sampler.draw(hidden.device)
        return subset_cross_entropy(
            hidden,
            *self._trained(self.weight, self.bias),
            target,
            coefficient,
            sample.rows,
            self.sign * sample.log_expected,
            torch.zeros_like(target, dtype=hidden.dtype),
        )


class SampledWrongSign(SampledUncorrected):
    """Sampled softmax that adds the logQ correction instead of subtracting it."""

    name = "sampled_wrong_sign"
    sign = 1.0
