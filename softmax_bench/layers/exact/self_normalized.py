"""Self-normalised softmax: exact likelihood, with log Z held near 0 for cheap inference."""

from __future__ import annotations

from types import MappingProxyType
from typing import Unpack

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.exact.full import FullOptions, FullSoftmax
from softmax_bench.layers.options import Knob


class SelfNormalizedSoftmax(FullSoftmax):
    """``loss = log Z - s_t + penalty (log Z)^2``: full softmax with ``log_z_penalty``.

    After this training, a score is nearly a log-probability: ``unnormalized_target_log_prob`` costs
    one product per token. Training costs as much as full softmax.

    Args:
        penalty: Weight of the squared log-normaliser. A larger weight keeps log Z closer to 0 and
            costs likelihood.
        **options: As for full softmax.
    """

    name = "self_normalized"
    source = "Devlin et al. 2014; Andreas & Klein 2015"
    good_for = "scores that are used without a normaliser afterwards"
    knobs = MappingProxyType({"penalty": Knob(1e-3, 1.0, log=True)})
    exact = False
    normalised = "by training"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        penalty: float = 0.1,
        **options: Unpack[FullOptions],
    ) -> None:
        check_penalty(penalty)
        if "log_z_penalty" in options:
            raise SoftmaxBenchError(f"{self.name}: log_z_penalty is called penalty here")
        options["log_z_penalty"] = penalty
        super().__init__(in_features, num_classes, **options)


def check_penalty(penalty: float) -> None:
    """Check that a weight is not negative.

    Raises:
        SoftmaxBenchError: It is negative.
    """
    if not penalty >= 0:
        raise SoftmaxBenchError(f"penalty must be at least 0, not {penalty}")
