"""Samples of negative classes that a whole batch shares, and their expected counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from softmax_bench.classes.draws import draws
from softmax_bench.classes.noise import Noise, expected_distinct
from softmax_bench.errors import check_positive
from softmax_bench.ops import tally


@dataclass(frozen=True)
class Sample:
    """Sampled classes, sorted."""

    rows: Tensor
    """(S,) class ids."""
    count: Tensor
    """(S,) float64: how often each was drawn; at most 1 if repeats do not count. On a GPU, a class
    may appear again, with a count of 0 from its second position on.
    """
    log_expected: Tensor
    """(S,) float64: log of the expected count."""


class SharedSampler(nn.Module):
    """Draws the classes that all tokens of a batch are scored against.

    With replacement, there are ``num_samples`` draws and a class counts as often as it was drawn;
    its expected count is ``num_samples q``. Without replacement, repeats are dropped: after T draws
    a class is in the sample with a probability of exactly ``1 - (1 - q)^T``, and T is chosen once
    so that ``num_samples`` distinct classes are expected. (The common practice of drawing until
    there are exactly ``num_samples`` makes T random and that probability approximate.) If the
    sample would hold nearly every class, it takes all of them, each with certainty.
    """

    def __init__(self, noise: Noise, num_samples: int, *, replacement: bool) -> None:
        super().__init__()
        check_positive("num_samples", num_samples)
        self.noise = noise
        self.num_samples = num_samples
        self.replacement = replacement
        self.num_draws = num_samples if replacement else _draws_for_distinct(noise, num_samples)

    @property
    def takes_all(self) -> bool:
        """Whether the sample is every class."""
        return self.num_draws == 0

    @draws
    def draw(self, device: torch.device) -> Sample:
        """A fresh sample."""
        if self.takes_all:
            rows = torch.arange(self.noise.num_classes, device=device)
            ones = torch.ones(rows.shape[0], dtype=torch.float64, device=device)
            return Sample(rows, ones, torch.zeros_like(ones))
        draws = self.noise.sample(self.num_draws, device)
        rows, count = tally(draws)
        if not self.replacement:
            count = count.clamp(max=1)
        return Sample(rows, count.double(), self.log_expected_count(rows))

    def expected_rows(self, shares: npt.NDArray[np.float64], num_tokens: int) -> float:
        """Mean number of distinct classes in a sample and in targets drawn by ``shares`` (V,)."""
        if self.takes_all:
            return self.noise.num_classes
        sample = self.noise.probabilities(), self.num_draws
        return expected_distinct(sample, (shares, num_tokens))

    def log_expected_count(self, classes: Tensor) -> Tensor:
        """Log of each class's expected count in a sample, in float64."""
        if self.takes_all:
            return torch.zeros(classes.shape, dtype=torch.float64, device=classes.device)
        log_q = self.noise.log_prob(classes)
        if self.replacement:
            return log_q + math.log(self.num_draws)
        return torch.log(-torch.expm1(self.num_draws * torch.log1p(-log_q.exp())))

    def target_offset(self, target: Tensor, sample: Sample) -> Tensor:
        """Minus the log of the factor that compensates for draws of the token's own target.

        Of m draws, m - hits are other classes, which have mass 1 - q_t: they are an independent
        sample of those, with weight m (1 - q_t) / (m - hits). Instead of multiplying all other
        weights, this subtracts the log of the factor from the target's score.

        Args:
            target: (M,) class of each token.
            sample: The sample, or the part of it that may contain these targets.

        Returns:
            (M,) float64; zeros if repeats do not count.
        """
        if not self.replacement:
            return torch.zeros(target.shape, dtype=torch.float64, device=target.device)
        hits = torch.zeros(target.shape, dtype=torch.float64, device=target.device)
        if sample.rows.shape[0]:
            place = torch.searchsorted(sample.rows, target).clamp_(max=sample.rows.shape[0] - 1)
            hit = sample.rows.index_select(0, place) == target
            hits = sample.count.index_select(0, place) * hit
        others = torch.log1p(-self.noise.log_prob(target).exp().clamp(max=1 - 1e-12))
        draws = self.num_draws
        return torch.log((draws - hits).clamp(min=1.0)) - math.log(draws) - others


def _draws_for_distinct(noise: Noise, num_samples: int) -> int:
    """The number of draws that give ``num_samples`` distinct classes on average, 0 for all."""
    log_missed = torch.log1p(-noise.log_prob(torch.arange(noise.num_classes, device="cpu")).exp())

    def distinct(draws: int) -> float:
        return float(-torch.expm1(draws * log_missed).sum())

    low, high = num_samples, 4 * noise.num_classes
    if num_samples >= noise.num_classes or distinct(high) < num_samples:
        return 0
    while low < high:  # the smallest number of draws that suffices
        middle = (low + high) // 2
        if distinct(middle) < num_samples:
            low = middle + 1
        else:
            high = middle
    return low
