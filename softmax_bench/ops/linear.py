"""Exact cross-entropy of a linear layer over all classes, never holding all N x V scores."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.gradients import Held
from softmax_bench.ops.rows import needs_grad
from softmax_bench.ops.softmax_loss import Gradients, accumulator, log_sum_exp, softmax_loss

PLAIN_SCORES = 2**22
"""Up to so many scores (16 MiB in float32) they stay in cache anyway, and torch's own few
operations cost less than the blocked pass's many: 0.6 of its time at V = 100, equal at 4,000."""


def linear_cross_entropy(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    target: Int[Tensor, "N"],
    coefficient: Float[Tensor, "N"],
) -> Float[Tensor, ""]:
    """``sum_n coefficient_n * -log softmax(h_n W^T + b)[target_n]``.

    Loss and gradients are made together, so a forward that needs gradients costs all three
    matrix products and the backward only hands them out; it can be run once. Only where all
    scores are few (:data:`PLAIN_SCORES`) is it left to torch.

    Args:
        hidden: Hidden states.
        weight: One row a class.
        bias: One offset a class.
        target: Class of each token, in [0, V).
        coefficient: Weight of each token in the sum: 1/N for a mean, 0 to ignore a token.
    """
    few = hidden.shape[0] * weight.shape[0] <= PLAIN_SCORES
    if few and hidden.dtype == accumulator(hidden.dtype):
        nll = F.cross_entropy(F.linear(hidden, weight, bias), target, reduction="none")
        return torch.dot(nll, coefficient)
    return _blocked_cross_entropy(hidden, weight, bias, target, coefficient)


@untraced
def linear_nll(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    target: Int[Tensor, "N"],
) -> Float[Tensor, "N"]:
    """``-log softmax(h_n W^T + b)[target_n]`` of each token, in memory that N x V does not enter.

    The backward makes the scores a second time: which coefficients the tokens get is not known
    before.
    """
    nll: Tensor = _LinearNLL.apply(hidden, weight, bias, target)
    return nll


def target_scores(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Score of each token's own class (N,), and the rows gathered for it (N, H)."""
    rows = weight.index_select(0, target)
    dtype = accumulator(hidden.dtype)
    scores = torch.linalg.vecdot(hidden.to(dtype), rows.to(dtype))
    if bias is not None:
        scores = scores + bias.index_select(0, target)
    return scores, rows


def _loss_and_gradients(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, coefficient: Tensor
) -> tuple[Tensor, Gradients]:
    log_z, gradients = softmax_loss(hidden, weight, bias, coefficient)
    scores, rows = target_scores(hidden, weight, bias, target)
    share = coefficient.to(hidden.dtype)
    gradients.hidden.addcmul_(rows, share.unsqueeze(1), value=-1)
    gradients.weight.index_add_(0, target, hidden * share.unsqueeze(1), alpha=-1)
    if gradients.bias is not None:
        gradients.bias.index_add_(0, target, share, alpha=-1)
    return log_z - scores, gradients


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        coefficient: Tensor,
    ) -> Tensor:
        if needs_grad(ctx, 0, 1, 2):
            nll, gradients = _loss_and_gradients(hidden, weight, bias, target, coefficient)
            ctx.held = Held((gradients.hidden, gradients.weight, gradients.bias))
        else:
            scores, _ = target_scores(hidden, weight, bias, target)
            nll = log_sum_exp(hidden, weight, bias) - scores
        return torch.dot(nll, coefficient.to(nll.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.held.times(grad), None, None)


@untraced
def _blocked_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, coefficient: Tensor
) -> Tensor:
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, target, coefficient)
    return loss


class _LinearNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, target)
        scores, _ = target_scores(hidden, weight, bias, target)
        return log_sum_exp(hidden, weight, bias) - scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target = ctx.saved_tensors
        _, gradients = _loss_and_gradients(hidden, weight, bias, target, grad)
        return gradients.hidden, gradients.weight, gradients.bias, None
