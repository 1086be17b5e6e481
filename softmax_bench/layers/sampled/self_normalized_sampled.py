"""Self-normalised softmax with a normaliser estimated from a sample of classes."""

from __future__ import annotations

from types import MappingProxyType
from typing import Unpack

from softmax_bench.layers.exact.self_normalized import check_penalty
from softmax_bench.layers.options import CommonOptions, Knob
from softmax_bench.layers.sampled.sampled import SampledSoftmax


class SelfNormalizedSampledSoftmax(SampledSoftmax):
    """``loss = log Z' - s_t + penalty (log Z')^2`` with sampled softmax's estimate ``Z'`` of Z.

    The cost of training, and of the probabilities it claims, does not depend on V.

    Args:
        penalty: Weight of the squared estimate of log Z.
        num_samples: Number of classes shared by the batch.
        noise: Proposal, as for sampled softmax.
        power: Exponent of the counts, for ``noise="unigram"``.
        **common: As for every output layer.
    """

    name = "self_normalized_sampled"
    scores = "N x k, one sample for all tokens"
    source = "Andreas & Klein 2015, with the sample of Bengio & Senecal 2003"
    good_for = "as self_normalized, at large V"
    knobs = MappingProxyType({"penalty": Knob(1e-3, 1.0, log=True)})
    normalised = "by training"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        penalty: float = 0.1,
        num_samples: int = 1024,
        noise: str = "log_uniform",
        power: float = 1.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        check_penalty(penalty)
        super().__init__(
            in_features, num_classes, num_samples=num_samples, noise=noise, power=power, **common
        )
        self.penalty = penalty
