"""Output layers with mistakes that are often made, to show what each costs (docs/claims.md).

A study names them like any layer from outside: ``layers = ["benchmarks.mistakes:NCEFromZero"]``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softmax_bench.layers import NCE, SampledSoftmax
from softmax_bench.layers.sampled.base import Negatives


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
    """Of the correction."""

    def _negatives(self, target: Tensor, kept: Tensor) -> Negatives:
        rows, offset, target_offset = super()._negatives(target, kept)
        return Negatives(rows, self.sign * offset, target_offset)


class SampledWrongSign(SampledUncorrected):
    """Sampled softmax that adds the logarithm of the expected count instead of subtracting it."""

    name = "sampled_wrong_sign"
    sign = -1.0
