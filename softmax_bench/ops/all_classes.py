"""Exact cross-entropy of a linear layer over all classes, which never holds all N x V scores."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.ops import operators
from softmax_bench.ops.autograd import (
    Gradients,
    Wanted,
    fused_loss,
    no_second_derivative,
    weighted_loss,
)
from softmax_bench.ops.cpu import all_classes
from softmax_bench.ops.cpu.all_classes import cross_entropy
from softmax_bench.ops.cpu.exponentials import accumulator
from softmax_bench.ops.dispatch import on_cuda
from softmax_bench.ops.objective import Objective, Terms, TokenSums, pulls_of

PLAIN_SCORES = 2**20
"""Up to this many scores (4 MiB in float32) stay in cache anyway, and torch's few operations cost
less than the blocked pass's many: 0.6 of its time at 700 x 100 scores, but at 700 x 2,000 as much
on two threads and more on one.
"""


def linear_cross_entropy(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    target: Int[Tensor, "N"],
    coefficient: Float[Tensor, "N"],
    *,
    penalty: float = 0.0,
    label_smoothing: float = 0.0,
    soft_cap: float = 0.0,
    class_weight: Float[Tensor, "V"] | None = None,
    save_memory: bool = False,
) -> Float[Tensor, ""]:
    """``sum_n coefficient_n loss_n`` of the scores ``h_n W^T + b``, loss and gradients in one pass.

    The loss of a token is that of :class:`~softmax_bench.ops.objective.Objective`: cross-entropy
    with the target, and what the options add to it. A forward that needs gradients computes all
    three matrix products (two, if weight or hidden states are frozen), and the backward, which can
    run only once, just returns them. If there are few scores on a CPU (:data:`PLAIN_SCORES`), torch
    computes the loss.

    Args:
        hidden: Hidden states.
        weight: One row per class.
        bias: One offset per class.
        target: Class of each token, in [0, V). On CUDA, others give a NaN loss and no gradient.
        coefficient: Weight of each token in the sum: 1/N for a mean, 0 to ignore a token.
        penalty: Weight of the squared log-normaliser, which keeps it near 0.
        label_smoothing: Share of the target that is spread evenly over all classes.
        soft_cap: Scores become ``soft_cap tanh(score / soft_cap)``; 0 leaves them unchanged.
        class_weight: Weight of each class, as in torch's ``cross_entropy``.
        save_memory: On CUDA, hold only a quarter of the scores at once (128 MiB instead of 512),
            which takes slightly longer.
    """
    weight, bias = _in_type_of(hidden, weight, bias)
    class_weight = _summed_type(class_weight, hidden)
    objective = Objective(penalty, label_smoothing, soft_cap, class_weight)
    few = hidden.shape[0] * weight.shape[0] <= PLAIN_SCORES
    if few and hidden.dtype == accumulator(hidden.dtype) and not on_cuda(hidden):
        scores = F.linear(hidden, weight, bias)
        if soft_cap:
            scores = soft_cap * (scores / soft_cap).tanh()
        losses = F.cross_entropy(
            scores, target, class_weight, reduction="none", label_smoothing=label_smoothing
        )
        if penalty:
            losses = losses + penalty * scores.logsumexp(1).square()
        return torch.dot(losses, coefficient)
    return weighted_loss(
        lambda shares: _fused(hidden, weight, bias, target, shares, objective, save_memory),
        coefficient,
        hidden.dtype,
    )


def _fused(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    objective: Objective,
    save_memory: bool,
) -> Tensor:
    of_tokens = target, coefficient, objective
    if torch.compiler.is_compiling():
        operands = hidden, weight, bias, target, coefficient, *objective, save_memory
        return operators.cross_entropy(*operands)[0]

    def run(wanted: Wanted, h: Tensor, w: Tensor, b: Tensor | None) -> tuple[Tensor, Gradients]:
        return cross_entropy(h, w, b, *of_tokens, wanted=wanted, save_memory=save_memory)

    return fused_loss(run, hidden, weight, bias)


def linear_nll(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    target: Int[Tensor, "N"],
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """``-log softmax(h_n W^T + b)[target_n]`` and ``log Z_n`` of each token.

    Memory is bounded for any N x V. The backward recomputes the scores, because the tokens'
    coefficients are not known before.
    """
    sums = token_sums(hidden, weight, bias, target, Terms())
    return sums.log_z - sums.target_score, sums.log_z


def token_sums(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    target: Int[Tensor, "N"],
    terms: Terms,
) -> TokenSums:
    """Differentiable statistics of each token's scores; memory as in :func:`linear_nll`."""
    weight, bias = _in_type_of(hidden, weight, bias)
    terms = terms._replace(class_weight=_summed_type(terms.class_weight, hidden))
    if torch.compiler.is_compiling():
        found = iter(operators.token_sums(hidden, weight, bias, target, *terms))
    else:
        found = iter(_TokenSums.apply(hidden, weight, bias, target, terms))
    present = True, True, terms.mean, terms.expected, terms.best
    return TokenSums._make(next(found) if there else None for there in present)


def _in_type_of(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Parameters in the dtype of the hidden states, which mixed precision has lowered."""
    return weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)


def _summed_type(class_weight: Tensor | None, hidden: Tensor) -> Tensor | None:
    return None if class_weight is None else class_weight.to(accumulator(hidden.dtype))


@no_second_derivative
class _TokenSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, terms: Terms
    ) -> tuple[Tensor, ...]:
        sums = all_classes.token_sums(hidden, weight, bias, target, terms)
        ctx.terms = terms
        ctx.save_for_backward(hidden, weight, bias, target, sums.log_z, sums.expected_score)
        if sums.best is not None:
            ctx.mark_non_differentiable(sums.best)
        return tuple(of for of in sums if of is not None)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target, log_z, expected = ctx.saved_tensors
        sums = TokenSums(log_z, log_z, None, expected)
        pulls = pulls_of(ctx.terms, grads)
        operands = hidden, weight, bias, target, ctx.terms
        wanted = ctx.needs_input_grad[:3]
        parts = all_classes.token_sum_gradients(pulls, sums, *operands, wanted=wanted)
        return (*parts, None, None)
