"""Loss and gradients of a softmax over all classes, made together and apart."""

from __future__ import annotations

import torch
from torch import Tensor

from softmax_bench.ops.cpu.exponentials import accumulator
from softmax_bench.ops.cpu.softmax_loss import Gradients, log_sum_exp, softmax_loss
from softmax_bench.ops.dispatch import by_device

Parts = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Gradients of hidden states, weight and bias; None where there is none."""


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


@by_device
def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    penalty: float,
    *,
    with_gradients: bool = True,
) -> tuple[Tensor, Parts]:
    """``sum_n coefficient_n (nll_n + penalty (log Z_n)^2)``, and its gradients if wanted."""
    scores, rows = target_scores(hidden, weight, bias, target)
    gradients = None
    if with_gradients:
        log_z, gradients = softmax_loss(hidden, weight, bias, coefficient, penalty=penalty)
        _subtract_target(gradients, hidden, target, rows, coefficient)
    else:
        log_z = log_sum_exp(hidden, weight, bias)
    losses = log_z - scores
    if penalty:
        losses += penalty * log_z.square()
    return torch.dot(losses, coefficient.to(losses.dtype)), _parts(gradients)


@by_device
def nll_and_log_z(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor
) -> tuple[Tensor, Tensor]:
    """``-log p`` of each token's target, and ``log Z`` of each token."""
    scores, _ = target_scores(hidden, weight, bias, target)
    log_z = log_sum_exp(hidden, weight, bias)
    return log_z - scores, log_z


@by_device
def nll_gradients(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    grad_nll: Tensor,
    grad_log_z: Tensor,
) -> Parts:
    """Gradients of both of :func:`nll_and_log_z`'s; the scores are made a second time."""
    _, gradients = softmax_loss(hidden, weight, bias, grad_nll + grad_log_z)
    rows = weight.index_select(0, target)
    _subtract_target(gradients, hidden, target, rows, grad_nll)
    return _parts(gradients)


def _parts(gradients: Gradients | None) -> Parts:
    if gradients is None:
        return None, None, None
    return gradients.hidden, gradients.weight, gradients.bias
