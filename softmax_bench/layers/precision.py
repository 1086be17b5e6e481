"""Mixed precision in output layers, which lowers the training step but not evaluation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
L = TypeVar("L")


def exactly(
    method: Callable[Concatenate[L, Tensor, P], R],
) -> Callable[Concatenate[L, Tensor, P], R]:
    """Run ``method`` in the parameters' dtype, even inside ``torch.autocast``."""

    @functools.wraps(method)
    def run(self: L, hidden: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> R:
        device = hidden.device.type
        if not torch.is_autocast_enabled(device):
            return method(self, hidden, *args, **kwargs)
        with torch.autocast(device, enabled=False):
            return method(self, hidden, *args, **kwargs)

    return run


def lowered(hidden: Tensor) -> Tensor:
    """Hidden states in the dtype of mixed precision, if enabled; products follow their dtype."""
    device = hidden.device.type
    if hidden.dtype == torch.float32 and torch.is_autocast_enabled(device):
        return hidden.to(torch.get_autocast_dtype(device))
    return hidden
