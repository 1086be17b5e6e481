"""Exact cross-entropy of a linear layer over all classes, never holding all N x V scores."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from softmax_bench.ops import operators
from softmax_bench.ops.autograd import Gradients, Wanted, fused_loss
from softmax_bench.ops.cpu.all_classes import cross_entropy, nll_and_log_z, nll_gradients
from softmax_bench.ops.cpu.exponentials import accumulator
from softmax_bench.ops.cpu.softmax_loss import log_sum_exp_scratch, loss_scratch
from softmax_bench.ops.dispatch import on_cuda
from softmax_bench.ops.footprint import TOKEN_BYTES, Footprint

PLAIN_SCORES = 2**20
"""Up to so many scores (4 MiB in float32) they stay in cache anyway, and torch's own few
operations cost less than the blocked pass's many: 0.6 of its time at 700 x 100 scores, but at
700 x 2,000 no less on two threads and more on one."""


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
    if few and hidden.dtype == accumulator(hidden.dtype) and not on_cuda(hidden):
        scores = F.linear(hidden, weight, bias)
        losses = F.cross_entropy(scores, target, reduction="none")
        if penalty:
            losses = losses + penalty * scores.logsumexp(1).square()
        return torch.dot(losses, coefficient)
    if torch.compiler.is_compiling():
        return operators.cross_entropy(hidden, weight, bias, target, coefficient, penalty)[0]

    def run(wanted: Wanted, h: Tensor, w: Tensor, b: Tensor | None) -> tuple[Tensor, Gradients]:
        operands = h, w, b, target, coefficient, penalty
        return cross_entropy(*operands, with_gradients=any(wanted))

    return fused_loss(run, hidden, weight, bias)


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
    if torch.compiler.is_compiling():
        return operators.nll(hidden, weight, bias, target)
    nll, log_z = _LinearNLL.apply(hidden, weight, bias, target)
    return nll, log_z


def _in_type_of(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Parameters in the type of the hidden states, which mixed precision has lowered."""
    return weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)


class _LinearNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden, weight, bias, target)
        return nll_and_log_z(hidden, weight, bias, target)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_log_z: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target = ctx.saved_tensors
        return (*nll_gradients(hidden, weight, bias, target, grad, grad_log_z), None)


def cross_entropy_footprint(
    num_tokens: int, num_classes: int, width: int, size: int, *, bias: bool, penalty: bool = False
) -> Footprint:
    """Bytes of :func:`linear_cross_entropy`.

    Args:
        num_tokens: N.
        num_classes: V.
        width: H.
        size: Bytes of a number.
        bias: Whether there is one.
        penalty: Whether there is one.
    """
    if num_tokens * num_classes <= PLAIN_SCORES:
        return plain_footprint(num_tokens, num_classes, width, size, bias=bias, penalty=penalty)
    states = num_tokens * width * size
    gradients = num_classes * (width + bias) * size
    workspace, scratch = loss_scratch(num_tokens, num_classes, width, size)
    # Beside the pass over all classes the targets' rows are there, after it also their gradients.
    beside = states + max(scratch, states)
    return Footprint(
        forward=gradients + states + beside + TOKEN_BYTES * num_tokens,
        kept=gradients + states,
        backward=gradients + states,
        gradients=gradients,
        hidden=states,
        workspace=workspace,
    )


def plain_footprint(
    num_tokens: int,
    num_classes: int,
    width: int,
    size: int,
    *,
    bias: bool,
    penalty: bool = False,
) -> Footprint:
    """Bytes of torch's own ``linear`` and ``cross_entropy``, with all scores; arguments as above.

    The log-probabilities are kept. In the backward their gradient and that of the scores come to
    them; with a penalty the scores themselves are kept too, and three times as many are made of
    them for the gradient of their normaliser.
    """
    scores = num_tokens * num_classes * size
    states = num_tokens * width * size
    gradients = num_classes * (width + bias) * size
    return Footprint(
        forward=(3 if penalty else 2) * scores,
        kept=(2 if penalty else 1) * scores,
        backward=max((5 if penalty else 3) * scores, scores + gradients + states),
        gradients=gradients,
        hidden=states,
    )


def nll_footprint(
    num_tokens: int, num_classes: int, width: int, size: int, *, bias: bool
) -> Footprint:
    """Bytes of :func:`linear_nll`; arguments as above."""
    states = num_tokens * width * size
    gradients = num_classes * (width + bias) * size
    tiles, forward = log_sum_exp_scratch(num_tokens, num_classes, width, size)
    workspace, scratch = loss_scratch(num_tokens, num_classes, width, size)
    kept = 2 * num_tokens * size
    return Footprint(
        forward=states + forward + TOKEN_BYTES * num_tokens,
        kept=kept,
        backward=kept + gradients + states + max(scratch, 2 * states),
        gradients=gradients,
        hidden=states,
        workspace=max(tiles, workspace),
    )
