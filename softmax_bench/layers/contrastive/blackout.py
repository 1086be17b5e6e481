"""BlackOut: a discriminative loss on a sample, weighted against the noise."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Unpack

import torch
from torch import Tensor

from softmax_bench.layers.options import CommonOptions, Knob
from softmax_bench.layers.sampled.sampled import SampledSoftmax
from softmax_bench.ops import subset_blackout, subset_scores


class BlackOut(SampledSoftmax):
    """``loss = -log p_t - sum_{j in sample} log(1 - p_j)``.

    p is the softmax over target and sample of ``s_j - log q_j``. The loss makes the target likely
    and each sampled class unlikely (Ji et al. 2016, equations 4 to 6). The batch shares the sample;
    a token leaves out its own target. As the sample grows, the gradient tends to that of the
    target's log odds ``-log(p_t / (1 - p_t))`` under the full softmax, since a target is never
    among its own negatives; its bias falls as 1/k^2.

    Args:
        num_samples: Number of classes drawn with replacement and shared by the batch.
        power: Exponent of the counts that classes are drawn by; the paper's best values fall from
            0.4 to 0.1 as the vocabulary grows.
        **common: As for every output layer.
    """

    name = "blackout"
    scores = "N x k, one sample for all tokens"
    source = "Ji et al. 2016"
    good_for = "large V; negatives are penalised more than in sampled softmax"
    knobs = MappingProxyType({"power": Knob(0.0, 1.0)})

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 1024,
        power: float = 0.4,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(
            in_features,
            num_classes,
            num_samples=num_samples,
            noise="unigram",
            power=power,
            replacement=True,
            **common,
        )

    def _weighted_loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        sample, log_q = self.sampler.draw(hidden.device), self.sampler.noise.log_prob
        return subset_blackout(
            hidden,
            *self._trained(self.weight, self.bias),
            target,
            coefficient,
            sample.rows,
            -log_q(sample.rows),
            sample.count,
            -log_q(target).to(hidden.dtype),
        )

    def _token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        sample, log_q = self.sampler.draw(hidden.device), self.sampler.noise.log_prob
        own, scores = subset_scores(
            hidden, *self._trained(self.weight, self.bias), target, sample.rows
        )
        own = own - log_q(target).to(own.dtype)
        scores = scores - log_q(sample.rows).to(own.dtype)
        # A class drawn c times counts c times.
        count = sample.count.to(own.dtype)
        hit = sample.rows == target.unsqueeze(1)
        weighted = (scores + count.log()).masked_fill(hit, -math.inf)
        log_z = torch.logaddexp(own, weighted.logsumexp(1))
        # Bound the loss, which is infinite if one class takes all the probability.
        p = torch.exp(scores - log_z.unsqueeze(1)).clamp(max=1 - 1e-6)
        unlikely = torch.log1p(-p).masked_fill(hit, 0.0) @ count
        return log_z - own - unlikely
