"""Noise-contrastive estimation: telling classes from noise needs no normaliser."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softmax_bench.classes.counts import unigram
from softmax_bench.classes.noise import expected_distinct, log_unigram, make_noise
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.options import CommonOptions, Knob, Normalised
from softmax_bench.layers.sampled.drawing import Sample, SharedSampler
from softmax_bench.ops import accumulator, pair_logistic, subset_logistic, subset_scores


class NCE(LinearOutputLayer):
    """Noise-contrastive estimation of ``log p(w|h) = s_w - log Z`` with one ``log Z`` for all h.

    Logistic regression distinguishes the target from k classes drawn from the noise q, by the log
    odds ``x_w = s_w - log Z - log(k q_w)``::

        loss = softplus(-x_target) + sum over the k noise classes of softplus(x)

    As k grows, the gradient tends to that of maximum likelihood. At any k, the optimum is the data
    distribution with normalised scores. ``log_prob`` nevertheless normalises exactly;
    ``unnormalized_target_log_prob`` assumes that the scores are normalised.

    The bias starts at log-unigram + log Z, so the model starts self-normalised at the unigram
    distribution. With Z = 1 and a zero bias, training would first have to learn V.

    Args:
        num_samples: Noise classes k per token.
        noise: ``"unigram"``, ``"log_uniform"`` or ``"uniform"``.
        power: Exponent of the counts, for ``"unigram"``.
        shared: Whether all tokens of a batch share their noise (one dense product), or each draws
            its own (k pairs per token, which costs more at equal k but has less variance).
        log_z: A number to fix it, ``"learned"`` to make it a parameter (started at 0), or
            ``"estimated"`` for a running importance-sampled estimate (shared noise only).
        **common: As for every output layer.
    """

    name = "nce"
    scores = "N x k, one sample for all tokens or one each"
    source = "Gutmann & Hyvarinen 2012; Mnih & Teh 2012"
    good_for = "large V, if scores are used without a normaliser afterwards"
    step_flops = "6 N (k + 1) H"
    knobs = MappingProxyType({"power": Knob(0.0, 1.0, needs=("noise", "unigram"))})
    exact = False
    normalised: ClassVar[Normalised] = "by training"
    touches_all_rows = False
    positive_weight = 1.0
    """Weight of the target's term in the loss; the fused pass supports no other value than 1."""

    log_z: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 1024,
        noise: str = "unigram",
        power: float = 1.0,
        shared: bool = True,
        log_z: float | str = 0.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        if isinstance(log_z, str) and log_z not in ("learned", "estimated"):
            raise SoftmaxBenchError(
                f"log_z must be a number, 'learned' or 'estimated', not {log_z!r}"
            )
        if log_z == "estimated" and not shared:
            raise SoftmaxBenchError("log_z='estimated' needs shared=True: it averages over a batch")
        self._log_z = log_z
        super().__init__(in_features, num_classes, **common)
        self.shared = shared
        self.sees_other_tokens = log_z == "estimated"
        distribution = make_noise(noise, num_classes, self._counts, power)
        self.sampler = SharedSampler(distribution, num_samples, replacement=True)
        if log_z == "learned":
            self.log_z = nn.Parameter(self.weight.new_zeros(()))
        else:
            # float64, whatever the parameters' dtype is, because a running average moves in small
            # steps.
            start = 0.0 if isinstance(log_z, str) else float(log_z)
            self.register_buffer("log_z", torch.tensor(start, dtype=torch.float64, device="cpu"))
        self.to(self.weight.device)

    def _initial_bias(self) -> Tensor:
        log_z = 0.0 if isinstance(self._log_z, str) else float(self._log_z)
        return log_unigram(self._counts, self.num_classes) + log_z

    def _weighted_loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        if not self.shared or self.positive_weight != 1:
            return super()._weighted_loss(hidden, target, coefficient)
        sample = self._draw(hidden, coefficient != 0)
        return subset_logistic(
            hidden,
            *self._trained(self.weight, self.bias),
            self.log_z,
            target,
            coefficient,
            sample.rows,
            -self._log_noise(sample.rows),
            sample.count,
            -self._log_noise(target).to(hidden.dtype),
        )

    def _token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        if not self.shared:
            return self._per_token_losses(hidden, target)
        sample = self._draw(hidden, torch.ones_like(target, dtype=torch.bool))
        own, noise = subset_scores(
            hidden, *self._trained(self.weight, self.bias), target, sample.rows
        )
        own = own - self.log_z - self._log_noise(target).to(own.dtype)
        noise = noise - self.log_z - self._log_noise(sample.rows).to(own.dtype)
        negatives = F.softplus(noise) @ sample.count.to(own.dtype)
        return self.positive_weight * F.softplus(-own) + negatives

    def _log_noise(self, classes: Tensor) -> Tensor:
        """``log(k q)`` of classes, in float64."""
        return self.sampler.log_expected_count(classes)

    def _draw(self, hidden: Tensor, kept: Tensor) -> Sample:
        sample = self.sampler.draw(hidden.device)
        if self._log_z == "estimated" and self.training:
            self._update_log_z(hidden, kept, sample.rows, sample.count.log() - sample.log_expected)
        return sample

    def _per_token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        tokens, k = hidden.shape[0], self.sampler.num_samples
        noise = self.sampler.noise.sample(tokens * k, hidden.device).view(tokens, k)
        rows = torch.cat([target.unsqueeze(1), noise], 1)
        offset = -self.log_z - self._log_noise(rows).to(accumulator(self.weight.dtype))
        weights = self._trained(self.weight, self.bias)
        return pair_logistic(hidden, *weights, rows, offset, self.positive_weight)

    @torch.no_grad()
    def _update_log_z(self, hidden: Tensor, kept: Tensor, rows: Tensor, log_weight: Tensor) -> None:
        bias = None if self.bias is None else self.bias.index_select(0, rows)
        scores = F.linear(hidden, self.weight.index_select(0, rows), bias)
        estimates = torch.logsumexp(scores + log_weight.to(scores.dtype), 1)
        estimate = torch.where(kept, estimates, 0.0).sum() / kept.sum()
        estimate = torch.where(estimate.isfinite(), estimate.to(self.log_z.dtype), self.log_z)
        self.log_z.lerp_(estimate, 0.01)

    def _self_normalized(self, scores: Tensor) -> Tensor:
        return scores - self.log_z

    def flops(self, num_tokens: int) -> float:
        """Three products over the noise and the targets."""
        return 6.0 * num_tokens * (self.sampler.num_samples + 1) * self.in_features

    def rows_touched(self, num_tokens: int) -> float:
        """Distinct classes among noise and targets."""
        shares = unigram(self._counts, self.num_classes)
        if self.shared:
            return self.sampler.expected_rows(shares, num_tokens)
        noise = self.sampler.noise.probabilities(), num_tokens * self.sampler.num_samples
        return expected_distinct(noise, (shares, num_tokens))
