"""Sampled softmax with random Fourier features as proposal."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.base import CommonOptions, Knob
from softmax_bench.layers.proposals.base import BlockSums, ProposalSoftmax

_LEAST = 1e-4
"""The features' product estimates a positive kernel but may be negative: it is cut here."""


class RandomFourierSoftmax(ProposalSoftmax):
    """``q(j|h)`` nearly in proportion to ``exp(nu h . w_j / (|h| |w_j|))``.

    Random Fourier features make that kernel an inner product of features, so the mass of a block of
    classes is the product with the sum of theirs (Rawat et al. 2019). Where the product falls below
    a least value that one is taken; the probability of a draw is what it was drawn with, exactly.

    Args:
        num_samples: Draws a token.
        nu: Sharpness of the kernel.
        features: Random frequencies; each gives a sine and a cosine.
        refresh: Training steps between snapshots of the rows.
        **common: As for every output layer.
    """

    name = "rff"
    scores = "k classes a token, near its hidden state"
    source = "Rawat et al. 2019"
    good_for = "rows and hidden states of even length; drawing is slow"
    step_flops = "6 N (k + 1) H + 4 N D (H + sqrt(V) (1 + k))"
    knobs = MappingProxyType({"nu": Knob(0.5, 8.0, log=True)})

    frequencies: Tensor
    _sums: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 32,
        nu: float = 2.0,
        features: int = 64,
        refresh: int = 100,
        **common: Unpack[CommonOptions],
    ) -> None:
        if not nu > 0 or features < 1:
            raise SoftmaxBenchError(
                f"nu must be positive and features at least 1, not {nu} and {features}"
            )
        super().__init__(
            in_features, num_classes, num_samples=num_samples, refresh=refresh, **common
        )
        generator = torch.Generator().manual_seed(0)
        frequencies = math.sqrt(nu) * torch.randn(in_features, features, generator=generator)
        self.register_buffer("frequencies", frequencies.to(self.weight))
        self._blocks = BlockSums(num_classes).to(self.weight.device)
        self._remember("_sums")

    def _features(self, vectors: Tensor) -> Tensor:
        angles = F.normalize(vectors, dim=1) @ self.frequencies.to(vectors.dtype)
        return torch.cat([angles.cos(), angles.sin()], 1) / math.sqrt(angles.shape[1])

    def _snapshot(self) -> None:
        self._blocks.fill(self._features(self.weight))
        self._sums = self._blocks.vectors.sum(1)

    def _propose(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        features = self._features(hidden)
        masses = torch.maximum(features @ self._sums.t(), _LEAST * self._blocks.used)
        return self._blocks.draw(
            masses, features, self.num_samples, lambda products: products.clamp(min=_LEAST)
        )

    def _proposal_flops(self, num_tokens: int) -> float:
        width, frequencies = self.frequencies.shape
        side = math.sqrt(self.num_classes)
        drawing = 2.0 * num_tokens * frequencies * (width + 2 * side * (1 + self.num_samples))
        return drawing + 2.0 * self.num_classes * width * frequencies / self.refresh

    def _drawing_bytes(self, num_tokens: int) -> int:
        size, width = self.weight.element_size(), 2 * self.frequencies.shape[1]
        given = num_tokens * (width + len(self._blocks.used)) * size
        drawing = self._blocks.drawing_bytes(num_tokens, self.num_samples, width, size, products=2)
        return given + drawing
