"""The best that full softmax of K dimensions can do, one free vector for each context."""

from __future__ import annotations

import torch
from torch import Tensor

from softmax_bench.layers import create_layer
from softmax_bench.layers.linear import LinearOutputLayer


def fit(
    joint: Tensor, dimensions: int, iterations: int = 1500
) -> tuple[LinearOutputLayer, Tensor, float]:
    """Fit a joint distribution (contexts, words); by default, to convergence.

    Returns:
        The layer, the vectors of the contexts, and the cross-entropy of a word given its context.
    """
    torch.manual_seed(0)
    contexts, words = joint.shape
    layer = create_layer("full", dimensions, words, joint.sum(0), dtype=joint.dtype)
    assert isinstance(layer, LinearOutputLayer)
    hidden = torch.randn(contexts, dimensions, dtype=joint.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [hidden, *layer.parameters()], max_iter=iterations, line_search_fn="strong_wolfe"
    )

    def cross_entropy() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = -(joint * layer.log_prob(hidden)).sum()
        loss.backward()
        return loss

    optimizer.step(cross_entropy)
    return layer, hidden.detach(), float(cross_entropy().detach())
