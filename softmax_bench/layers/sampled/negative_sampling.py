"""Negative sampling: word2vec's objective, which estimates no density."""

from __future__ import annotations

from types import MappingProxyType
from typing import Unpack

import torch
from torch import Tensor

from softmax_bench.layers.base import CommonOptions, Knob
from softmax_bench.layers.sampled.nce import NCE


class NegativeSampling(NCE):
    """``loss = softplus(-s_target) + sum over the k negatives of softplus(s)``.

    NCE without the noise's probabilities. **It estimates no density**: at its optimum the scores
    are ``log p(w|h) - log(k q_w)``, pointwise mutual information less ``log k`` when q is the
    unigram distribution (Levy & Goldberg 2014). It makes vectors, not language models. The
    perplexity of ``log_prob`` is that of the softmax of these scores all the same, and shows it.

    Args:
        num_samples: Negatives k a token.
        power: Exponent of the class counts that negatives are drawn by.
        shared: Whether all tokens of a batch share their negatives.
        **common: As for every output layer.
    """

    name = "negative_sampling"
    scores = "N x k, one sample for all tokens or one each"
    source = "Mikolov et al. 2013"
    good_for = "word vectors, not probabilities"
    knobs = MappingProxyType({"power": Knob(0.0, 1.0)})
    normalised = "no"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 20,
        power: float = 0.75,
        shared: bool = True,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(
            in_features, num_classes, num_samples=num_samples, power=power, shared=shared, **common
        )

    def _log_noise(self, classes: Tensor) -> Tensor:
        return torch.zeros(classes.shape, dtype=torch.float64, device=classes.device)
