"""Negative sampling: word2vec's objective, whose scores are not log-probabilities."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Unpack

import torch
from torch import Tensor

from softmax_bench.errors import SoftmaxBenchError, check_positive
from softmax_bench.layers.contrastive.nce import NCE
from softmax_bench.layers.options import CommonOptions, Knob


class NegativeSampling(NCE):
    """``loss = softplus(-s_target) + sum over the k negatives of softplus(s)``.

    This is NCE without the noise's probabilities. At its optimum, the scores are
    ``log p(w|h) - log k q_w``, which is pointwise mutual information minus ``log k`` if q is the
    unigram distribution (Levy & Goldberg 2014). So the vectors are good, but the scores are not
    log-probabilities; those are ``s_w + log(k q_w)``. ``log_prob``, and any perplexity, use these
    sums. A softmax of the scores alone would give rare classes the probability of frequent ones.

    With ``calibration`` t, the target's term is weighted by ``beta = 1 - t (1 - k / (V - 1))``:
    gBCE (Petrov & Macdonald 2023), whose alpha is ``k / (V - 1)``. With few negatives, a target
    becomes certain too easily, and beta compensates for this: the optimum changes by ``log beta``,
    and with uniform negatives (``power=0``) and t = 1 it is nearly ``log p(w|h)``. Without
    calibration, beta is 1.

    Args:
        num_samples: Negatives k per token.
        power: Exponent of the class counts that negatives are drawn by.
        shared: Whether all tokens of a batch share their negatives.
        calibration: t, from 0 (plain negative sampling) to 1.
        **common: As for every output layer.
    """

    name = "negative_sampling"
    scores = "N x k, one sample for all tokens or one each"
    source = "Mikolov et al. 2013; Petrov & Macdonald 2023"
    good_for = "word vectors; recommenders that rank by score"
    knobs = MappingProxyType({"power": Knob(0.0, 1.0)})

    log_noise: Tensor
    """(V,) ``log(k q / beta)``; in the state dict, because the distribution depends on it."""

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 20,
        power: float = 0.75,
        shared: bool = True,
        calibration: float = 0.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        if not 0 <= calibration <= 1:
            raise SoftmaxBenchError(f"calibration must be from 0 to 1, not {calibration}")
        check_positive("num_samples", num_samples)
        share = num_samples / max(1, num_classes - 1)
        beta = 1 - calibration * (1 - min(1.0, share))
        self._start = power, math.log(num_samples / beta)
        super().__init__(
            in_features, num_classes, num_samples=num_samples, power=power, shared=shared, **common
        )
        self.positive_weight = beta
        log_noise = self.sampler.log_expected_count(torch.arange(num_classes, device="cpu"))
        log_noise = log_noise - math.log(beta)
        self.register_buffer("log_noise", log_noise.to(self.log_z.device))

    def _initial_bias(self) -> Tensor:
        power, log_factor = self._start
        unigram = super()._initial_bias()
        return unigram - (power * unigram).log_softmax(0) - log_factor

    def offsets(self) -> Tensor:
        """The bias, and the difference between log-probabilities and scores: log(k q / beta)."""
        log_noise = self.log_noise.to(self.weight.dtype)
        return log_noise if self.bias is None else self.bias + log_noise

    def _log_noise(self, classes: Tensor) -> Tensor:
        return torch.zeros(classes.shape, dtype=torch.float64, device=classes.device)
