"""Exact cross-entropy of a linear layer over all classes, never holding all N x V scores."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.exponentials import accumulator
from softmax_bench.ops.gradients import Held
from softmax_bench.ops.rows import needs_grad
from softmax_bench.ops.softmax_loss import Gradients, log_sum_exp, softmax_loss

PLAIN_SCORES = 2**21
"""Up to so many scores (8 MiB in float32) they stay in cache anyway, and torch's own few
operations cost less than the blocked pass's many: 0.6 of its time at 700 x 100 scores, the same
at 700 x 2,000."""


def linear_cross_entropy(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    target: Int[Tensor, "N"],
    coefficient: Float[Tensor, "N"],
    *,
    penalty: float = 0.0,
) -> Float[Tensor, ""]:
    """``sum_n coefficient_n (-log softmax(h_n W^T + b)[target_n] + penalty (log Z_n)^2)``.

    Loss and gradients are made together, so a forward that needs gradients costs all three
    matrix products and the backward only hands them out; it can be run once. Only where all
    scores are few (:data:`PLAIN_SCORES`) is it left to torch.

    Args:
        hidden: Hidden states.
        weight: One row a class.
        bias: One offset a class.
        target: Class of each token, in [0, V).
        coefficient: Weight of each token in the sum: 1/N for a mean, 0 to ignore a token.
        penalty: Weight of the squared log-normaliser, which holds it near 0.
    """
    weight, bias = _in_type_of(hidden, weight, bias)
    few = hidden.shape[0] * weight.shape[0] <= PLAIN_SCORES
    if few and hidden.dtype == accumulator(hidden.dtype):
        scores = F.linear(hidden, weight, bias)
        losses = F.cross_entropy(scores, target, reduction="none")
        if penalty:
            losses = losses + penalty * scores.logsumexp(1).square()
        return torch.dot(losses, coefficient)
    return _blocked_cross_entropy(hidden, weight, bias, target, coefficient, penalty)


@untraced
def linear_nll(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    target: Int[Tensor, "N"],
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """``-log softmax(h_n W^T + b)[target_n]`` and ``log Z_n`` of each token.

    Memory is bounded whatever N x V. The backward makes the scores a second time: which
    coefficients the tokens get is not known before.
    """
    weight, bias = _in_type_of(hidden, weight, bias)
    nll, log_z = _LinearNLL.apply(hidden, weight, bias, target)
    return nll, log_z


def _in_type_of(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Parameters in the type of the hidden states, which mixed precision has lowered."""
    return weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)


def target_scores(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Score of each token's own class (N,), and the rows gathered for it (N, H)."""
    rows = weight.index_select(0, target).to(hidden.dtype)
    dtype = accumulator(hidden.dtype)
    scores = torch.linalg.vecdot(hidden.to(dtype), rows.to(dtype))
    if bias is not None:
        scores = scores + bias.index_select(0, target)
    return scores, rows


def _subtract_target(
    gradients: Gradients, hidden: Tensor, target: Tensor, rows: Tensor, coefficient: Tensor
) -> None:
    """Add the gradients of ``-sum_n coefficient_n s_n,target(n)``."""
    share = coefficient.to(hidden.dtype)
    gradients.hidden.addcmul_(rows, share.unsqueeze(1), value=-1)
    gradients.weight.index_add_(0, target, hidden * share.unsqueeze(1), alpha=-1)
    if gradients.bias is not None:
        gradients.bias.index_add_(0, target, share, alpha=-1)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        coefficient: Tensor,
        penalty: float,
    ) -> Tensor:
        scores, rows = target_scores(hidden, weight, bias, target)
        if needs_grad(ctx, 0, 1, 2):
            log_z, gradients = softmax_loss(hidden, weight, bias, coefficient, penalty=penalty)
            _subtract_target(gradients, hidden, target, rows, coefficient)
            ctx.held = Held((gradients.hidden, gradients.weight, gradients.bias))
        else:
            log_z = log_sum_exp(hidden, weight, bias)
        losses = log_z - scores
        if penalty:
            losses += penalty * log_z.square()
        return torch.dot(losses, coefficient.to(losses.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.held.times(grad), None, None, None)


@untraced
def _blocked_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    penalty: float,
) -> Tensor:
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, target, coefficient, penalty)
    return loss


class _LinearNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden, weight, bias, target)
        scores, _ = target_scores(hidden, weight, bias, target)
        log_z = log_sum_exp(hidden, weight, bias)
        return log_z - scores, log_z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_log_z: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target = ctx.saved_tensors
        _, gradients = softmax_loss(hidden, weight, bias, grad + grad_log_z)
        rows = weight.index_select(0, target)
        _subtract_target(gradients, hidden, target, rows, grad)
        return gradients.hidden, gradients.weight, gradients.bias, None
