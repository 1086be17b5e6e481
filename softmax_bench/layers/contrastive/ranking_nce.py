"""Ranking NCE, also called InfoNCE: which of k + 1 classes is the data's, and which are noise?"""

from __future__ import annotations

from types import MappingProxyType
from typing import Unpack

from torch import Tensor

from softmax_bench.layers.options import CommonOptions, Knob
from softmax_bench.layers.sampled.base import Negatives
from softmax_bench.layers.sampled.sampled import SampledSoftmax


class RankingNCE(SampledSoftmax):
    """``loss = log(exp(x_t) + sum over k noise classes of exp(x)) - x_t`` with ``x = s - log q``.

    Unlike in sampled softmax, the target's score is corrected too, and noise that happens to be the
    target stays. The optimum of the objective is then the conditional distribution itself, at any
    k, with scores determined up to a constant per hidden state (Ma & Collins 2018, theorem 4.1).

    Args:
        num_samples: Noise classes k, drawn with replacement and shared by the batch.
        noise: ``"unigram"``, ``"log_uniform"`` or ``"uniform"``.
        power: Exponent of the counts, for ``"unigram"``.
        **common: As for every output layer.
    """

    name = "ranking_nce"
    scores = "N x k, one sample for all tokens"
    source = "Jozefowicz et al. 2016; van den Oord et al. 2018; Ma & Collins 2018"
    good_for = "large V; consistent at any number of samples"
    keep_hits = True
    knobs = MappingProxyType({"power": Knob(0.0, 1.0, needs=("noise", "unigram"))})

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 1024,
        noise: str = "unigram",
        power: float = 1.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(
            in_features,
            num_classes,
            num_samples=num_samples,
            noise=noise,
            power=power,
            replacement=True,
            **common,
        )

    def _negatives(self, target: Tensor, kept: Tensor) -> Negatives:
        sample, log_q = self.sampler.draw(target.device), self.sampler.noise.log_prob
        return Negatives(sample.rows, sample.count.log() - log_q(sample.rows), -log_q(target))
