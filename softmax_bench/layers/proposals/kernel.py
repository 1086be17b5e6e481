"""Sampled softmax with a quadratic kernel as the proposal."""

from __future__ import annotations

from types import MappingProxyType
from typing import Unpack

import torch
from torch import Tensor

from softmax_bench.errors import SoftmaxBenchError, check_positive
from softmax_bench.layers.options import CommonOptions, Knob
from softmax_bench.layers.proposals.tree import TreeProposal

_SPREAD_FROM = 4096
"""Number of rows, drawn by the prior, that determine the projection."""


class KernelSampledSoftmax(TreeProposal):
    """``q(j|h)`` in proportion to ``exp(b_j) (alpha (P h . P w_j)^2 + 1)``, drawn exactly.

    The mass below a node is ``h' G h + n``, where ``G`` is the sum of the rows' outer products and
    ``n`` that of their priors (Blanc & Rendle 2018, section 3.3, which has neither the bias nor P).
    P keeps the ``dimensions`` in which the rows vary most, which makes ``G`` small. The
    probabilities are exactly those of the projected kernel.

    Args:
        num_samples: Number of draws for each token.
        alpha: Weight of the kernel relative to the prior.
        dimensions: Number of dimensions that the projection keeps; at most H.
        refresh: Training steps between snapshots of the rows.
        **common: As for every output layer.
    """

    name = "kernel"
    scores = "k classes per token, near its hidden state"
    source = "Blanc & Rendle 2018"
    good_for = "few samples, if classes far from frequent ones matter; drawing is slow"
    step_flops = "6 N (k + 1) H + N D^2 (1024 + k (B if two levels)) + 2 N k B D, B <= 128"
    knobs = MappingProxyType({"alpha": Knob(0.01, 100.0, log=True)})

    _projection: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 32,
        alpha: float = 100.0,
        dimensions: int = 16,
        refresh: int = 100,
        **common: Unpack[CommonOptions],
    ) -> None:
        check_positive("dimensions", dimensions)
        if not alpha >= 0:
            raise SoftmaxBenchError(f"alpha must be at least 0, not {alpha}")
        width = min(dimensions, in_features)
        super().__init__(
            in_features,
            num_classes,
            leaf_width=width,
            node_width=width * (width + 1) // 2,
            num_samples=num_samples,
            refresh=refresh,
            **common,
        )
        self.alpha = alpha
        self._keep("_projection", (in_features, width))

    def _leaves(self, rows: Tensor, prior: Tensor) -> Tensor:
        if self.leaf_width == self.in_features:
            self._projection.copy_(torch.eye(self.in_features))
        else:
            some = rows[torch.multinomial(prior[:, 0], _SPREAD_FROM, replacement=True)]
            self._projection.copy_(torch.linalg.eigh(some.t() @ some)[1][:, -self.leaf_width :])
        return rows @ self._projection * (self.alpha * prior).sqrt()

    def _queries(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        near = hidden @ self._projection
        first, second = self._pairs()
        return near[:, first] * near[:, second], near

    def _sums(self, leaves: Tensor) -> Tensor:
        first, second = self._pairs()
        outer = (leaves.transpose(1, 2) @ leaves)[:, first, second]
        return outer * torch.where(first == second, 1.0, 2.0)

    def _pairs(self) -> Tensor:
        width = self.leaf_width
        return torch.triu_indices(width, width, device=self._projection.device)

    def _masses(self, products: Tensor, prior: Tensor, *, leaf: bool) -> Tensor:
        return (products.square_() if leaf else products.clamp_(min=0.0)).add_(prior)
