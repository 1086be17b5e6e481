"""The components of a loss over all classes, and what they need to know about a token's scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Objective(NamedTuple):
    """How scores become the loss of a token.

    With scores ``s``, class weights ``u`` of mean ``U`` and label smoothing ``e`` it is::

        (1 - e) u_target (log Z - s_target) + e (U log Z - mean_j u_j s_j) + penalty (log Z)^2

    Without the penalty, this is torch's ``cross_entropy``. Without class weights, ``u`` is 1.
    """

    penalty: float = 0.0
    label_smoothing: float = 0.0
    soft_cap: float = 0.0
    """``s = soft_cap tanh(x / soft_cap)`` for raw scores ``x``; 0 leaves them unchanged."""
    class_weight: Tensor | None = None
    """(V,) float32, or float64 if the scores are."""


class Terms(NamedTuple):
    """Which of :class:`TokenSums` are needed, and of which scores."""

    soft_cap: float = 0.0
    class_weight: Tensor | None = None
    """Affects ``mean_score`` only."""
    mean: bool = False
    expected: bool = False
    best: bool = False


class TokenSums(NamedTuple):
    """What any of these losses needs to know about a token's scores: numbers of shape (N,)."""

    target_score: Tensor
    log_z: Tensor
    mean_score: Tensor | None = None
    """``mean_j u_j s_j``."""
    expected_score: Tensor | None = None
    """``sum_j p_j s_j``: the entropy is ``log Z`` minus this."""
    best: Tensor | None = None
    """The class with the highest score, int64, without a gradient."""


class Pulls(NamedTuple):
    """Gradients of a loss in the :class:`TokenSums` of a token, floats of shape (N,)."""

    target_score: Tensor
    log_z: Tensor
    mean_score: Tensor | None = None
    expected_score: Tensor | None = None


def pulls_of(terms: Terms, grads: Sequence[Tensor]) -> Pulls:
    """The gradients in those sums that exist."""
    rest = iter(grads[2:])
    mean = next(rest).contiguous() if terms.mean else None
    expected = next(rest).contiguous() if terms.expected else None
    return Pulls(grads[0].contiguous(), grads[1].contiguous(), mean, expected)
