"""Losses whose gradients are made together with them, in one pass, and handed out later.

Once the weight of each token in the loss is known, its gradients cost no second look at the
scores. So the forward makes them, and the backward only multiplies them by what comes from above.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from softmax_bench.ops.cpu.scaling import scale_

Wanted = Sequence[bool]
"""Of each operand, whether it wants a gradient."""
Gradients = tuple[Tensor | None, ...]
"""Of each operand; None where none is wanted."""
Fused = Callable[..., tuple[Tensor, Gradients]]
"""Called with :data:`Wanted` and the operands: a scalar loss and its gradients in them."""


def fused_loss(run: Fused, *operands: Tensor | None) -> Tensor:
    """The loss that ``run`` computes of these operands, differentiable once, in one backward."""
    loss: Tensor = _FusedLoss.apply(run, *operands)
    return loss


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Fused, *operands: Tensor | None) -> Tensor:
        loss, gradients = run(ctx.needs_input_grad[1:], *operands)
        ctx.held = Held(gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.held.times(grad))


class Held:
    """Gradients of a scalar loss, handed out once."""

    def __init__(self, gradients: Gradients) -> None:
        self._gradients: Gradients | None = gradients

    def times(self, upstream: Tensor) -> Gradients:
        """The gradients times the loss's own gradient.

        Raises:
            RuntimeError: They were handed out before. They are not kept, because torch must be
                able to use them as the parameters' ``.grad`` without a copy.
        """
        if self._gradients is None:
            raise RuntimeError(
                "this loss made its gradients in the forward pass and has handed them out: call "
                "forward again before a second backward (retain_graph has no effect here)"
            )
        gradients, self._gradients = self._gradients, None
        for gradient in gradients:
            if gradient is not None:
                scale_(gradient._values() if gradient.is_sparse else gradient, upstream)
        return gradients
