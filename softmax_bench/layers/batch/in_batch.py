"""In-batch softmax: the targets of the other tokens serve as negatives."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from softmax_bench.classes.counts import unigram
from softmax_bench.classes.noise import expected_distinct, log_unigram, make_noise
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.batch.ignored import count_of_kept
from softmax_bench.layers.options import CommonOptions
from softmax_bench.layers.sampled.base import Negatives, SharedNegativesSoftmax
from softmax_bench.ops import tally


class InBatchSoftmax(SharedNegativesSoftmax):
    """Sampled softmax whose sample is the batch's own targets.

    ``log(exp(s_t) + sum over the others j of exp(s_j) (1 - p_t) / (n_t p_j)) - s_t``, where n_t
    tokens have a target other than t. Nothing is drawn: a batch is a sample from the data's own
    distribution p, whose probabilities come from ``class_counts`` (logQ correction; Yi et al. 2019,
    except that the target's score is not corrected, because the target is always present). With
    that exception, the gradient is that of Khrylchenko et al. 2025 (arXiv 2507.09331), whose loss
    is a sum over the other targets only, weighted by the estimate of ``1 - p(t|h)``. Without the
    correction, frequent classes are negatives so often that they are predicted too rarely.

    Rare classes are hardly ever negatives, unless ``num_samples`` further classes for the whole
    batch are drawn from ``noise`` (mixed negative sampling, Yang et al. 2020). The sum is then over
    ``exp(s_j) count_j / ((N - 1) p_j + S q_j)``, whose denominator is the expected count under the
    mixture.

    Args:
        correction: Whether to weight by p; if not, ``log(exp(s_t) + sum exp(s_j)) - s_t``.
        num_samples: Number S of classes to draw in addition to the batch's.
        noise: Their distribution q: ``"uniform"``, ``"log_uniform"`` or ``"unigram"``.
        **common: As for every output layer.
    """

    name = "in_batch"
    scores = "N x the distinct targets of the batch"
    source = "Hidasi et al. 2016; Yi et al. 2019; Yang et al. 2020; Khrylchenko et al. 2025"
    good_for = "recommenders whose rows come from a network that computes them for the batch anyway"
    step_flops = "6 N (N' + 1) H, N' the distinct targets"
    sees_other_tokens = True

    log_p: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        correction: bool = True,
        num_samples: int = 0,
        noise: str = "uniform",
        **common: Unpack[CommonOptions],
    ) -> None:
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 0:
            raise SoftmaxBenchError(f"num_samples must be a whole number, not {num_samples!r}")
        super().__init__(in_features, num_classes, **common)
        self.correction = correction
        self.num_samples = num_samples
        self.noise = make_noise(noise, num_classes, self._counts)
        self.register_buffer("log_p", log_unigram(self._counts, num_classes), persistent=False)
        self.to(self.weight.device)

    def _negatives(self, target: Tensor, kept: Tensor) -> Negatives:
        classes = target
        if self.num_samples:
            classes = torch.cat([target, self.noise.sample(self.num_samples, target.device)])
        rows, count = tally(classes)
        count = count_of_kept(rows, count, target, kept)
        offset, own_offset = count.double().log(), torch.zeros_like(self.log_p[target])
        if self.correction and self.num_samples:
            of_batch = (kept.sum() - 1) * self.log_p[rows].exp()
            of_noise = self.num_samples * self.noise.log_prob(rows).exp()
            offset = offset - (of_batch + of_noise).log()
        elif self.correction:
            others = torch.log1p(-self.log_p[target].exp().clamp(max=1 - 1e-12))
            offset = offset - self.log_p[rows]
            alike = count[torch.searchsorted(rows, target)]
            own_offset = (kept.sum() - alike).clamp(min=1).log() - others
        return Negatives(rows, offset, own_offset)

    def flops(self, num_tokens: int) -> float:
        """Three products over the expected number of distinct classes under p and q."""
        return 6.0 * num_tokens * (self.rows_touched(num_tokens) + 1) * self.in_features

    def rows_touched(self, num_tokens: int) -> float:
        """The distinct targets and samples."""
        targets = unigram(self._counts, self.num_classes), num_tokens
        return expected_distinct(targets, (self.noise.probabilities(), self.num_samples))
