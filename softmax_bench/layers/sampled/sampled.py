"""Sampled softmax: a sample of classes estimates the normaliser."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from softmax_bench.classes.counts import unigram
from softmax_bench.classes.noise import make_noise
from softmax_bench.layers.options import CommonOptions
from softmax_bench.layers.sampled.base import Negatives, SharedNegativesSoftmax
from softmax_bench.layers.sampled.drawing import SharedSampler


class SampledSoftmax(SharedNegativesSoftmax):
    """Softmax over the target and a sample of other classes that the whole batch shares.

    ``loss = log(exp(s_t) + sum_{j in sample, j != t} exp(s_j - log E[count_j])) - s_t``

    The sum is an unbiased estimate of the other classes' contribution to Z; the target itself is
    always present exactly once and needs no correction. So the loss estimates the exact
    cross-entropy and tends to it as the sample grows. With replacement, a token's own target is
    dropped from the draws and the rest is weighted up; unless nothing is left, this makes the
    gradient exactly unbiased if q is the model's own softmax (Blanc & Rendle 2018, theorem 2.1).

    Args:
        num_samples: Number of classes shared by the batch: of draws with replacement, else of
            distinct classes on average.
        noise: Proposal ``"log_uniform"``, ``"unigram"`` or ``"uniform"``. Without
            ``class_counts``, log-uniform assumes that ids are frequency ranks.
        power: Exponent of the counts, for ``"unigram"`` only.
        replacement: Whether a class drawn twice counts twice.
        **common: As for every output layer.
    """

    name = "sampled"
    scores = "N x k, one sample for all tokens"
    source = "Bengio & Senecal 2003; Jean et al. 2015"
    good_for = "large V at little cost in perplexity, if only training must be fast"
    step_flops = "6 N (k + 1) H"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 1024,
        noise: str = "log_uniform",
        power: float = 1.0,
        replacement: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        proposal = make_noise(noise, num_classes, self._counts, power)
        self.sampler = SharedSampler(proposal, num_samples, replacement=replacement)
        self.sampler.to(self.weight.device)

    def _negatives(self, target: Tensor, kept: Tensor) -> Negatives:
        sample = self.sampler.draw(target.device)
        offset = sample.count.log() - sample.log_expected
        return Negatives(sample.rows, offset, self.sampler.target_offset(target, sample))

    def flops(self, num_tokens: int) -> float:
        """Three products over the sample, and two row-wise ones for the targets."""
        samples = min(self.sampler.num_samples, self.num_classes)
        return 6.0 * num_tokens * (samples + 1) * self.in_features

    def rows_touched(self, num_tokens: int) -> float:
        """Distinct classes among sample and targets."""
        return self.sampler.expected_rows(unigram(self._counts, self.num_classes), num_tokens)
