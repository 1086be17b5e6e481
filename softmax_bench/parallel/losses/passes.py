"""Losses whose gradients are computed by a pass over this process's rows, for autograd.

A *pass* takes the weight of each token in the loss, or None if no gradient is needed, and the
operands; it returns the loss of each token and the gradients of the operands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from softmax_bench.ops.autograd import (
    Gradients,
    Wanted,
    fused_loss,
    no_second_derivative,
    weighted_loss,
)

Pass = Callable[..., tuple[Tensor, Gradients]]


def weighted_sum(
    run: Pass, coefficient: Tensor, hidden: Tensor, *operands: Tensor | None
) -> Tensor:
    """``sum_n coefficient_n loss_n``: loss and gradients in one pass."""

    def loss(shares: Tensor) -> Tensor:
        def fused(wanted: Wanted, *operands: Tensor | None) -> tuple[Tensor, Gradients]:
            losses, gradients = run(shares if any(wanted) else None, *operands)
            return torch.dot(losses, shares.to(losses.dtype)), gradients

        return fused_loss(fused, hidden, *operands)

    return weighted_loss(loss, coefficient, hidden.dtype)


def each(run: Pass, *operands: Tensor | None) -> Tensor:
    """The loss of every token; the backward, where their weights become known, runs a second pass.

    Their weights must be the same on all processes.
    """
    losses: Tensor = _Each.apply(run, *operands)
    return losses


@no_second_derivative
class _Each(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Pass, *operands: Tensor | None) -> Tensor:
        ctx.run = run
        ctx.save_for_backward(*operands)
        losses, _ = run(None, *operands)
        return losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _, gradients = ctx.run(grad.contiguous(), *ctx.saved_tensors)
        return (None, *gradients)
