"""Self-normalised softmax: exact likelihood, with log Z held near 0 for cheap inference."""

from __future__ import annotations

from types import MappingProxyType
from typing import Unpack

from torch import Tensor

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.base import CommonOptions, Knob
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.ops import linear_cross_entropy, linear_nll


class SelfNormalizedSoftmax(LinearOutputLayer):
    """``loss = log Z - s_t + penalty (log Z)^2``.

    Trained so, a score is nearly a log-probability by itself: ``unnormalized_target_log_prob``
    costs one product a token. Training costs what full softmax does.

    Args:
        penalty: Weight of the squared log-normaliser. More of it holds log Z closer to 0 and costs
            likelihood.
        **common: As for every output layer.
    """

    name = "self_normalized"
    scores = "all N x V"
    source = "Devlin et al. 2014; Andreas & Klein 2015"
    good_for = "scores that are used without a normaliser afterwards"
    step_flops = "6 N V H"
    knobs = MappingProxyType({"penalty": Knob(1e-3, 1.0, log=True)})
    exact = False
    normalised = "by training"
    touches_all_rows = True
    traceable = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        penalty: float = 0.1,
        **common: Unpack[CommonOptions],
    ) -> None:
        check_penalty(penalty)
        super().__init__(in_features, num_classes, **common)
        self.penalty = penalty

    def _loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        return linear_cross_entropy(
            hidden, self.weight, self.bias, target, coefficient, penalty=self.penalty
        )

    def _losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        nll, log_z = linear_nll(hidden, self.weight, self.bias, target)
        return nll + self.penalty * log_z.square()

    def flops(self, num_tokens: int) -> float:
        """Three products over all classes."""
        return 6.0 * num_tokens * self.weight.numel()


def check_penalty(penalty: float) -> None:
    """Refuse a negative weight.

    Raises:
        SoftmaxBenchError: It is negative.
    """
    if not penalty >= 0:
        raise SoftmaxBenchError(f"penalty must be at least 0, not {penalty}")
