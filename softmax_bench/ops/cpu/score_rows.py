"""Passes over the scores of a chunk of tokens, row by row: sums, losses, gradients in place.

``scores`` (n, V) are raw, without the bias and the soft cap.
"""

from __future__ import annotations

from torch import Tensor

from softmax_bench.ops.dispatch import by_device
from softmax_bench.ops.objective import Objective, Pulls, Terms, TokenSums


@by_device
def sums(scores: Tensor, bias: Tensor | None, target: Tensor, terms: Terms) -> TokenSums:
    """The sums of each row of scores, which may be overwritten."""
    values = _capped_(scores, bias, terms.soft_cap)
    log_z = values.logsumexp(1)
    mean = expected = best = None
    if terms.mean:
        weight = terms.class_weight
        mean = values.mean(1) if weight is None else values @ weight / values.shape[1]
    if terms.best:
        best = values.argmax(1)
    own = values.gather(1, target.unsqueeze(1)).squeeze(1)
    if terms.expected:
        p = (values - log_z.unsqueeze(1)).exp_()
        expected = p.mul_(values.masked_fill(p == 0, 0)).sum(1)
    return TokenSums(own, log_z, mean, expected, best)


@by_device
def loss_(
    scores: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    objective: Objective,
    out: Tensor,
) -> None:
    """Write ``coefficient_n loss_n`` into ``out``, and its gradient in the scores over them."""
    terms = Terms(objective.soft_cap, objective.class_weight, bool(objective.label_smoothing))
    of_rows = sums(scores.to(out.dtype, copy=True), bias, target, terms)
    out.copy_(objective.losses(of_rows, target) * coefficient)
    pulls = objective.pulls(of_rows, target, coefficient)
    gradient_(scores, bias, target, pulls, of_rows, terms)


@by_device
def gradient_(
    scores: Tensor, bias: Tensor | None, target: Tensor, pulls: Pulls, sums: TokenSums, terms: Terms
) -> None:
    """Overwrite scores by their gradient, given that in their sums, ``pulls``."""
    values = _capped_(scores.to(sums.log_z.dtype, copy=True), bias, terms.soft_cap)
    gradient = (values - sums.log_z.unsqueeze(1)).exp_()
    factor = pulls.log_z.unsqueeze(1)
    if pulls.expected_score is not None:
        assert sums.expected_score is not None
        expected = pulls.expected_score.unsqueeze(1)
        surplus = (values - sums.expected_score.unsqueeze(1)).masked_fill_(gradient == 0, 0)
        factor = factor + expected * (1 + surplus)
    gradient *= factor
    gradient.scatter_add_(
        1, target.unsqueeze(1), pulls.target_score.to(gradient.dtype).unsqueeze(1)
    )
    if pulls.mean_score is not None:
        share = (pulls.mean_score / scores.shape[1]).unsqueeze(1)
        gradient += share if terms.class_weight is None else share * terms.class_weight
    if terms.soft_cap:
        gradient *= 1 - (values / terms.soft_cap).square()
    scores.copy_(gradient)


def _capped_(scores: Tensor, bias: Tensor | None, soft_cap: float) -> Tensor:
    if bias is not None:
        scores += bias
    return scores.div_(soft_cap).tanh_().mul_(soft_cap) if soft_cap else scores
