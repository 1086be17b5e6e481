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

    def losses(self, sums: TokenSums, target: Tensor) -> Tensor:
        """The loss of each token (n,)."""
        penalty, smoothing, _, class_weight = self
        of_target: Tensor | float = 1.0
        mean: Tensor | float = 1.0
        if class_weight is not None:
            # A target outside the classes, which nothing has checked on CUDA, has the score NaN.
            known = target.clamp(0, class_weight.shape[0] - 1)
            of_target, mean = class_weight[known], class_weight.mean()
        result = (1 - smoothing) * of_target * (sums.log_z - sums.target_score)
        if smoothing:
            assert sums.mean_score is not None
            result = result + smoothing * (mean * sums.log_z - sums.mean_score)
        return result + penalty * sums.log_z.square() if penalty else result

    def pulls(self, sums: TokenSums, target: Tensor, coefficient: Tensor) -> Pulls:
        """Gradients of ``sum_n coefficient_n loss_n`` in the sums."""
        penalty, smoothing, _, class_weight = self
        c = coefficient.to(sums.log_z.dtype)
        mean: Tensor | float = 1.0
        of_target = (1 - smoothing) * c
        if class_weight is not None:
            of_target, mean = of_target * class_weight[target], class_weight.mean()
        log_z = of_target
        if smoothing:
            log_z = log_z + smoothing * mean * c
        if penalty:
            log_z = log_z + 2 * penalty * c * sums.log_z
        return Pulls(-of_target, log_z, -smoothing * c if smoothing else None)


class Terms(NamedTuple):
    """Which of :class:`TokenSums` are needed, and of which scores."""

    soft_cap: float = 0.0
    class_weight: Tensor | None = None
    """Affects ``mean_score`` only."""
    mean: bool = False
    expected: bool = False
    best: bool = False
    save_memory: bool = False
    """Whether the gradient holds only a quarter of the scores at once on CUDA."""


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
