"""The layers under test, and their hidden states."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from softmax_bench.layers.base import OutputLayer

Factory = Callable[..., OutputLayer]
"""Called as ``factory(in_features, num_classes, class_counts=..., dtype=...)``."""


def random_hidden(layer: OutputLayer, *shape: int) -> Tensor:
    """Hidden states of these leading dimensions, in float64."""
    return torch.randn(*shape, layer.in_features, dtype=torch.float64)
