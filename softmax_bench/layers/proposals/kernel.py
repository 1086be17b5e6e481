"""Sampled softmax with a quadratic kernel as proposal."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Unpack

import torch
from torch import Tensor

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.base import CommonOptions, Knob
from softmax_bench.layers.proposals.base import BlockSums, ProposalSoftmax


class KernelSampledSoftmax(ProposalSoftmax):
    """``q(j|h)`` in proportion to ``alpha (P h . P w_j)^2 + 1``, drawn exactly.

    The mass of a block of classes is ``alpha h' G h + n`` with ``G`` the sum of the outer products
    of its n rows, so a draw looks at sqrt(V) blocks and then at the sqrt(V) classes of one (Blanc &
    Rendle 2018, section 3, with a tree of two levels, whose products are dense). P is a random
    projection that keeps ``G`` small; the probabilities are those of the projected kernel, exactly.

    Args:
        num_samples: Draws a token.
        alpha: Weight of the kernel against uniform draws.
        dimensions: Of the projection; no projection where H is no larger.
        refresh: Training steps between snapshots of the rows.
        **common: As for every output layer.
    """

    name = "kernel"
    scores = "k classes a token, near its hidden state"
    source = "Blanc & Rendle 2018"
    good_for = "few samples where classes far from frequent ones matter; drawing is slow"
    step_flops = "6 N (k + 1) H + 2 N (sqrt(V) D^2 + k sqrt(V) D)"
    knobs = MappingProxyType({"alpha": Knob(1.0, 1000.0, log=True)})

    projection: Tensor
    _sums: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 32,
        alpha: float = 100.0,
        dimensions: int = 32,
        refresh: int = 100,
        **common: Unpack[CommonOptions],
    ) -> None:
        if not alpha >= 0 or dimensions < 1:
            raise SoftmaxBenchError(
                f"alpha must be at least 0 and dimensions at least 1, not {alpha} and {dimensions}"
            )
        super().__init__(
            in_features, num_classes, num_samples=num_samples, refresh=refresh, **common
        )
        self.alpha = alpha
        if dimensions < in_features:
            generator = torch.Generator().manual_seed(0)
            projection = torch.randn(in_features, dimensions, generator=generator)
            projection /= math.sqrt(dimensions)  # keeps products, on average
        else:
            projection = torch.eye(in_features)
        self.register_buffer("projection", projection.to(self.weight))
        self._blocks = BlockSums(num_classes).to(self.weight.device)
        self._remember("_sums")

    def _snapshot(self) -> None:
        self._blocks.fill(self.weight @ self.projection.to(self.weight.dtype))
        vectors = self._blocks.vectors
        self._sums = (vectors.transpose(1, 2) @ vectors).flatten(1)

    def _propose(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        near = hidden @ self.projection.to(hidden.dtype)
        outer = (near.unsqueeze(2) * near.unsqueeze(1)).flatten(1)
        masses = (self.alpha * outer @ self._sums.t()).clamp_(min=0.0) + self._blocks.used
        return self._blocks.draw(
            masses, near, self.num_samples, lambda products: self.alpha * products.square() + 1
        )

    def _proposal_flops(self, num_tokens: int) -> float:
        width = self.projection.shape[1]
        side = math.sqrt(self.num_classes)
        drawing = 2.0 * num_tokens * side * width * (width + self.num_samples)
        return drawing + 4.0 * self.num_classes * width * self.in_features / self.refresh

    def _drawing_bytes(self, num_tokens: int) -> int:
        size, width = self.weight.element_size(), self.projection.shape[1]
        given = num_tokens * (width + width**2 + len(self._blocks.used)) * size
        drawing = self._blocks.drawing_bytes(num_tokens, self.num_samples, width, size, products=3)
        return given + drawing
