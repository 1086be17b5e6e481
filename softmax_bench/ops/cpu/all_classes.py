"""Softmax over all classes: loss and gradients together, sums of scores, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from softmax_bench.ops import token_chunks
from softmax_bench.ops.cpu.exponentials import accumulator
from softmax_bench.ops.cpu.softmax_loss import Gradients, log_sum_exp, softmax_loss
from softmax_bench.ops.dispatch import by_device
from softmax_bench.ops.objective import Objective, Pulls, Terms, TokenSums
from softmax_bench.ops.token_chunks import Parts


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


@by_device
def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    objective: Objective,
    *,
    wanted: Sequence[bool],
    save_memory: bool,
) -> tuple[Tensor, Parts]:
    """``sum_n coefficient_n loss_n``, and its gradients in the operands that need one."""
    if objective.soft_cap:
        operands = hidden, weight, bias, target, coefficient, objective
        return token_chunks.cross_entropy(*operands, wanted=wanted, save_memory=save_memory)
    own, rows = target_scores(hidden, weight, bias, target)
    mean_row = None
    if objective.label_smoothing:
        mean_row = MeanRow(weight, bias, objective.class_weight, weight.shape[0])
    parts: Parts = None, None, None
    if any(wanted):
        # All pulls except that of the penalty are known before log Z.
        linear = objective._replace(penalty=0.0)
        pulls = linear.pulls(TokenSums(own, own), target, coefficient)
        log_z, gradients = softmax_loss(
            hidden,
            weight,
            bias,
            pulls.log_z,
            square=objective.penalty * coefficient if objective.penalty else None,
            wanted=wanted,
        )
        add_linear(gradients, pulls, hidden, target, rows, mean_row)
        parts = gradients.hidden, gradients.weight, gradients.bias
    else:
        log_z = log_sum_exp(hidden, weight, bias)
    sums = TokenSums(own, log_z, None if mean_row is None else mean_row.scores(hidden))
    losses = objective.losses(sums, target)
    return torch.dot(losses, coefficient.to(losses.dtype)), parts


@by_device
def token_sums(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, terms: Terms
) -> TokenSums:
    """The sums of each token's scores."""
    if terms.soft_cap or terms.expected or terms.best:
        return token_chunks.token_sums(hidden, weight, bias, target, terms)
    own, _ = target_scores(hidden, weight, bias, target)
    mean = None
    if terms.mean:
        mean = MeanRow(weight, bias, terms.class_weight, weight.shape[0]).scores(hidden)
    return TokenSums(own, log_sum_exp(hidden, weight, bias), mean)


@by_device
def token_sum_gradients(
    pulls: Pulls,
    sums: TokenSums,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    terms: Terms,
    *,
    wanted: Sequence[bool],
) -> Parts:
    """Gradients of a loss whose gradients in the sums are ``pulls``; scores are recomputed."""
    if terms.soft_cap or terms.expected:
        operands = hidden, weight, bias, target, terms
        return token_chunks.token_sum_gradients(pulls, sums, *operands, wanted=wanted)
    _, gradients = softmax_loss(hidden, weight, bias, pulls.log_z, wanted=wanted)
    mean_row = None
    if terms.mean:
        mean_row = MeanRow(weight, bias, terms.class_weight, weight.shape[0])
    rows = weight.index_select(0, target)
    add_linear(gradients, pulls, hidden, target, rows, mean_row)
    return gradients.hidden, gradients.weight, gradients.bias


class MeanRow:
    """The class-weighted mean of all rows, whose score is the mean of all scores.

    Of ``num_classes`` rows, ``weight`` may hold some; then it is their part of the mean.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, class_weight: Tensor | None, num_classes: int
    ) -> None:
        dtype = accumulator(weight.dtype)
        if class_weight is None:
            class_weight = weight.new_ones(weight.shape[0], dtype=dtype)
        self.shares = class_weight.to(dtype) / num_classes
        """(V,) weight of each row in the mean."""
        self.row = (self.shares.to(weight.dtype) @ weight).to(dtype)
        self.offset = None if bias is None else self.shares @ bias.to(dtype)

    def scores(self, hidden: Tensor) -> Tensor:
        """Mean score of each token (N,)."""
        scores = hidden.to(self.row.dtype) @ self.row
        return scores if self.offset is None else scores + self.offset


def add_linear(
    gradients: Gradients,
    pulls: Pulls,
    hidden: Tensor,
    target: Tensor,
    rows: Tensor,
    mean_row: MeanRow | None,
) -> None:
    """Add the gradients that come through the targets' scores and the mean scores."""
    pull = pulls.target_score.to(hidden.dtype)
    if gradients.hidden is not None:
        gradients.hidden.addcmul_(rows, pull.unsqueeze(1))
    if gradients.weight is not None:
        gradients.weight.index_add_(0, target, hidden * pull.unsqueeze(1))
    if gradients.bias is not None:
        gradients.bias.index_add_(0, target, pull)
    if mean_row is None:
        return
    assert pulls.mean_score is not None
    pull, shares = pulls.mean_score.to(hidden.dtype), mean_row.shares.to(hidden.dtype)
    if gradients.hidden is not None:
        gradients.hidden.addr_(pull, mean_row.row.to(hidden.dtype))
    if gradients.weight is not None:
        gradients.weight.addr_(shares, pull @ hidden)
    if gradients.bias is not None:
        gradients.bias.add_(shares * pull.sum())
