"""Sampled softmax with random Fourier features as the proposal."""

from __future__ import annotations

import math
from functools import partial
from types import MappingProxyType
from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError, check_positive
from softmax_bench.layers.options import CommonOptions, Knob
from softmax_bench.layers.proposals.tree import TreeProposal


class RandomFourierSoftmax(TreeProposal):
    """``q(j|h)`` nearly in proportion to ``exp(b_j + nu cos(h, w_j))``.

    Random Fourier features turn ``exp(-nu |h - w|^2 / 2)``, for directions h and w, into an inner
    product of features (Rawat et al. 2019, section 3.1, where rows and hidden states have norm 1
    and there is no bias). The product only estimates the kernel and may be negative, so no class
    counts for less than one orthogonal to h does. With a smaller floor, noise could make a class
    almost impossible, and its rare draws would have enormous weights. The probability of a draw is
    exactly the one it was drawn with.

    Args:
        num_samples: Number of draws for each token.
        nu: Sharpness of the kernel.
        features: Number of random frequencies; each gives a sine and a cosine.
        refresh: Training steps between snapshots of the rows.
        **common: As for every output layer.
    """

    name = "rff"
    scores = "k classes per token, near its hidden state"
    source = "Rawat et al. 2019"
    good_for = "rows and hidden states of similar norms; drawing is slow"
    step_flops = "6 N (k + 1) H + 4 N D (H + 1024 + k B L), B <= 128 children, L levels"
    knobs = MappingProxyType({"nu": Knob(0.5, 8.0, log=True)})

    _frequencies: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 32,
        nu: float = 4.0,
        features: int = 64,
        refresh: int = 100,
        **common: Unpack[CommonOptions],
    ) -> None:
        check_positive("features", features)
        if not nu > 0:
            raise SoftmaxBenchError(f"nu must be positive, not {nu}")
        super().__init__(
            in_features,
            num_classes,
            leaf_width=2 * features,
            node_width=2 * features,
            num_samples=num_samples,
            refresh=refresh,
            **common,
        )
        self.nu = nu
        self._keep("_frequencies", (in_features, features))
        generator = torch.Generator().manual_seed(0)
        draw = partial(torch.randn, generator=generator, device="cpu")
        for some in self._frequencies.split(in_features, 1):
            directions = torch.linalg.qr(draw(in_features, some.shape[1]))[0]
            some.copy_(math.sqrt(nu) * directions * draw(in_features, some.shape[1]).norm(dim=0))

    def _features(self, vectors: Tensor) -> Tensor:
        angles = F.normalize(vectors, dim=1) @ self._frequencies
        return torch.cat([angles.cos(), angles.sin()], 1) / math.sqrt(angles.shape[1])

    def _leaves(self, rows: Tensor, prior: Tensor) -> Tensor:
        return self._features(rows) * prior

    def _queries(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        features = self._features(hidden)
        return features, features

    def _sums(self, leaves: Tensor) -> Tensor:
        return leaves.sum(1)

    def _masses(self, products: Tensor, prior: Tensor, *, leaf: bool) -> Tensor:
        return torch.maximum(products, math.exp(-self.nu) * prior, out=products)
