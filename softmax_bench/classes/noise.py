"""Distributions from which negative classes are drawn, with their exact probabilities.

Every draw is O(1) for any number of classes, and every probability is computed in float64: in
float32, the tail of a million classes is wrong by tens of per cent, which a correction by ``log q``
turns into a biased gradient.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from softmax_bench.classes.counts import check_counts, positive_counts, unigram
from softmax_bench.classes.draws import draws
from softmax_bench.classes.kept_buffers import KeptBuffers
from softmax_bench.errors import SoftmaxBenchError


class Noise(KeptBuffers, ABC):
    """A distribution over ``num_classes`` classes.

    Its tables come from the class counts and stay out of the state dict.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    @abstractmethod
    def sample(self, num_samples: int, device: torch.device) -> Int[Tensor, "num_samples"]:
        """Draw classes, independently and with replacement, from torch's global generator."""

    @abstractmethod
    def log_prob(self, classes: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Log-probability of classes, in float64."""

    @abstractmethod
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Probabilities of all classes (V,), without the tables, which may have no memory."""


class UniformNoise(Noise):
    """All classes are equally likely."""

    @draws
    def sample(self, num_samples: int, device: torch.device) -> Tensor:  # noqa: D102
        return torch.randint(self.num_classes, (num_samples,), device=device)

    def log_prob(self, classes: Tensor) -> Tensor:  # noqa: D102
        value = -math.log(self.num_classes)
        return torch.full(classes.shape, value, dtype=torch.float64, device=classes.device)

    def probabilities(self) -> npt.NDArray[np.float64]:  # noqa: D102
        return np.full(self.num_classes, 1.0 / self.num_classes)


class LogUniformNoise(Noise):
    """``q(r) = log(1 + 1/(r+1)) / log(V+1)`` for the class of frequency rank r: nearly Zipf's law.

    Draws have a closed form and need no table: ``r = floor((V+1)^u) - 1``. With ``counts``, ranks
    are determined here; without, class ids must be ranks already.
    """

    ranked: Tensor | None
    rank: Tensor | None

    def __init__(self, num_classes: int, counts: npt.ArrayLike | None = None) -> None:
        super().__init__(num_classes)
        self._log_range = math.log1p(num_classes)
        self._counts = counts
        ranked = rank = None
        if counts is not None:
            order = np.argsort(-check_counts(counts, num_classes), kind="stable")
            if np.any(order != np.arange(num_classes)):
                ranked = torch.from_numpy(order)
                rank = torch.from_numpy(np.argsort(order))
        self.register_buffer("ranked", ranked, persistent=False)
        self.register_buffer("rank", rank, persistent=False)

    @draws
    def sample(self, num_samples: int, device: torch.device) -> Tensor:  # noqa: D102
        u = torch.rand(num_samples, dtype=torch.float64, device=device)
        # The product can round up to the end of the range, so clamp it.
        rank = torch.exp(u * self._log_range).long().sub_(1).clamp_(0, self.num_classes - 1)
        return rank if self.ranked is None else self.ranked.index_select(0, rank)

    def log_prob(self, classes: Tensor) -> Tensor:  # noqa: D102
        rank = classes if self.rank is None else self.rank[classes]
        return torch.log1p(1.0 / (rank.double() + 1.0)).log_().sub_(math.log(self._log_range))

    def probabilities(self) -> npt.NDArray[np.float64]:  # noqa: D102
        by_rank = np.log1p(1.0 / np.arange(1, self.num_classes + 1)) / self._log_range
        if self._counts is None:
            return by_rank
        of_class = np.empty_like(by_rank)
        of_class[np.argsort(-np.asarray(self._counts), kind="stable")] = by_rank
        return of_class


class UnigramNoise(Noise):
    """``q(i)`` in proportion to ``count_i ** power``, drawn from an alias table (Walker 1977)."""

    threshold: Tensor
    alias: Tensor
    log_q: Tensor

    def __init__(
        self, num_classes: int, counts: npt.ArrayLike | None = None, power: float = 1.0
    ) -> None:
        super().__init__(num_classes)
        self._counts, self._power = counts, power
        probabilities = self.probabilities()
        threshold, alias = alias_table(probabilities)
        self.register_buffer("threshold", torch.from_numpy(threshold), persistent=False)
        self.register_buffer("alias", torch.from_numpy(alias), persistent=False)
        self.register_buffer("log_q", torch.from_numpy(np.log(probabilities)), persistent=False)

    @draws
    def sample(self, num_samples: int, device: torch.device) -> Tensor:  # noqa: D102
        # One uniform number selects the column and, by the rest of its 53 bits, the side.
        u = torch.rand(num_samples, dtype=torch.float64, device=device).mul_(self.num_classes)
        column = u.long().clamp_(max=self.num_classes - 1)
        stays = u.sub_(column) < self.threshold.index_select(0, column)
        return torch.where(stays, column, self.alias.index_select(0, column))

    def log_prob(self, classes: Tensor) -> Tensor:  # noqa: D102
        return self.log_q[classes]

    def probabilities(self) -> npt.NDArray[np.float64]:  # noqa: D102
        weights = positive_counts(self._counts, self.num_classes) ** self._power
        return weights / weights.sum()


def log_unigram(counts: npt.NDArray[np.float64] | None, num_classes: int) -> Tensor:
    """Logarithm of :func:`unigram`, float64.

    The scores of every layer start here, so every loss starts at that of the unigram model.
    """
    return torch.from_numpy(np.log(unigram(counts, num_classes)))


def expected_distinct(*draws: tuple[npt.NDArray[np.float64], int]) -> float:
    """Mean number of distinct classes among independent draws.

    Args:
        *draws: Pairs of class probabilities (V,) and the number of draws from them.
    """
    log_missed = sum(n * np.log1p(-np.minimum(q, 1 - 1e-12)) for q, n in draws)
    return float(-np.expm1(log_missed).sum())


def alias_table(
    probabilities: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Alias table of a distribution, by prefix sums instead of a loop over classes.

    Scaled to mean one, light classes have a deficit and heavy ones an excess. Comparing the running
    sums of both shows which heavy class fills each light one: the first whose running excess
    exceeds the running deficit (Hubschle-Schneider & Sanders 2022). A heavy class that is used up
    inside a light one's deficit becomes light by that much itself, and the next one fills it.

    Returns:
        ``threshold`` and ``alias`` (V,): column i stays i with probability ``threshold[i]``.
    """
    scaled = probabilities * probabilities.shape[0]
    threshold = np.minimum(scaled, 1.0)
    alias = np.arange(scaled.shape[0])
    light, heavy = np.flatnonzero(scaled < 1.0), np.flatnonzero(scaled >= 1.0)
    if not light.size or not heavy.size:
        return np.ones_like(scaled), alias
    lack = np.concatenate([[0.0], np.cumsum(1.0 - scaled[light])])
    excess = np.cumsum(scaled[heavy] - 1.0)
    last = heavy.size - 1
    filler = np.minimum(np.searchsorted(excess, lack[:-1], side="right"), last)
    alias[light] = heavy[filler]
    # Running deficit when heavy class j is used up, and what that leaves of its own column.
    used = lack[np.minimum(np.searchsorted(lack[:-1], excess, side="left"), light.size)]
    threshold[heavy] = np.clip(1.0 - (used - excess), 0.0, 1.0)
    alias[heavy] = heavy[np.minimum(np.arange(heavy.size) + 1, last)]
    threshold[heavy[last]] = 1.0  # it could be less only by rounding
    return threshold, alias


def make_noise(
    name: str, num_classes: int, counts: npt.ArrayLike | None, power: float = 1.0
) -> Noise:
    """Create a noise distribution by name.

    Raises:
        SoftmaxBenchError: There is no such distribution, or it has no power.
    """
    if power != 1 and name in ("uniform", "log_uniform"):
        raise SoftmaxBenchError(
            f"power={power} needs noise='unigram': {name} noise has no counts to raise to a power"
        )
    if name == "uniform":
        return UniformNoise(num_classes)
    if name == "log_uniform":
        return LogUniformNoise(num_classes, counts)
    if name == "unigram":
        return UnigramNoise(num_classes, counts, power)
    raise SoftmaxBenchError(f"unknown noise {name!r}: choose 'unigram', 'log_uniform' or 'uniform'")
