"""Moments of a random gradient around the exact one, from draws that are not stored."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.records.result import Estimate, GradientMoments

GROUPS = 8
"""Number of groups that draws are assigned to; only the sum of each is stored."""

_STRETCHES = 20

Statistic = Callable[[list[int]], float]
"""A statistic of the given groups."""


class MomentAccumulator:
    """Accumulates draws of a gradient, dense or row-sparse.

    It stores :data:`GROUPS` sums of the gradient's size, for any number of draws. The squared bias
    has the unbiased estimate ``mean over a != b of <d_a, d_b>``, the products of different groups'
    deviations, to which their independent noise adds nothing. The variance is the rest of
    ``E |g - e|^2``. Intervals are Student's, by the jackknife over the groups.

    Args:
        exact: The exact dense gradient.

    Raises:
        SoftmaxBenchError: It is zero, so that nothing can be relative to it.
    """

    def __init__(self, exact: Tensor) -> None:
        self._exact = exact.detach()
        self._length = float(torch.linalg.vector_norm(self._exact, dtype=torch.float64))
        if not self._length > 0:
            raise SoftmaxBenchError("the exact gradient is zero: nothing can be relative to it")
        self._sums = [torch.zeros_like(self._exact) for _ in range(GROUPS)]
        self._squares: list[list[float]] = [[] for _ in range(GROUPS)]
        self._cosines: list[list[float]] = [[] for _ in range(GROUPS)]
        self._draws = 0

    @torch.no_grad()
    def add(self, gradient: Tensor) -> None:
        """Add one draw."""
        group = self._draws % GROUPS
        self._draws += 1
        self._sums[group].add_(gradient)
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            there = self._exact.index_select(0, gradient.indices()[0]).double()
            values = gradient.values().double()
        else:
            there, values = self._exact.double(), gradient.double()
        square, product = float((values * values).sum()), float((values * there).sum())
        self._squares[group].append(max(0.0, square - 2 * product + self._length**2))
        length = math.sqrt(square)
        self._cosines[group].append(product / (length * self._length) if length else 0.0)

    @torch.no_grad()
    def result(self) -> GradientMoments:
        """The moments of the draws so far.

        Raises:
            SoftmaxBenchError: There are fewer than two draws per group.
        """
        if self._draws < 2 * GROUPS:
            raise SoftmaxBenchError(
                f"expected at least {2 * GROUPS} draws of the gradient, not {self._draws}"
            )
        deviations = [
            total.div(len(squares)).sub_(self._exact).flatten()
            for total, squares in zip(self._sums, self._squares, strict=True)
        ]
        products = np.array(
            [[float(torch.dot(a, b)) for b in deviations] for a in deviations]
        ) / (self._length**2)  # fmt: skip
        along = np.array([float(torch.dot(d, self._exact.flatten())) for d in deviations])
        along /= self._length**2
        squares = np.array([np.mean(group) for group in self._squares]) / self._length**2
        cosines = np.array([np.mean(group) for group in self._cosines])

        def bias_square(kept: list[int]) -> float:
            inner = products[np.ix_(kept, kept)]
            return float(inner.sum() - np.trace(inner)) / (len(kept) * (len(kept) - 1))

        def variance(kept: list[int]) -> float:
            return float(squares[kept].mean()) - bias_square(kept)

        def cosine(kept: list[int]) -> float:
            return float(cosines[kept].mean())

        def direction(kept: list[int]) -> float:
            onto = float(along[kept].mean())
            length = max(bias_square(kept) + 2 * onto + 1, 1e-30)
            return (1 + onto) / math.sqrt(length)

        square = _jackknife(bias_square)
        return GradientMoments(
            bias=_mapped(square, lambda x: math.sqrt(max(0.0, x))),
            variance=_within(_jackknife(variance), 0.0, math.inf),
            cosine=_within(_jackknife(cosine), -1.0, 1.0),
            direction=_within(_jackknife(direction), -1.0, 1.0),
        )


def _jackknife(statistic: Statistic) -> Estimate:
    everything = list(range(GROUPS))
    estimate = statistic(everything)
    without = np.array([statistic(everything[:g] + everything[g + 1 :]) for g in everything])
    error = math.sqrt((GROUPS - 1) / GROUPS * float(((without - without.mean()) ** 2).sum()))
    half = float(t.ppf(0.975, GROUPS - 1)) * error
    return Estimate(value=estimate, low=estimate - half, high=estimate + half)


def _within(estimate: Estimate, low: float, high: float) -> Estimate:
    return _mapped(estimate, lambda x: min(high, max(low, x)))


def _mapped(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
    value, low, high = map(function, (estimate.value, estimate.low, estimate.high))
    return Estimate(value=value, low=low, high=high)


def block_mean(values: Tensor) -> Estimate:
    """Mean of successive values of a text, with Student's interval from the means of stretches.

    Neighbouring values are correlated, but the means of long stretches hardly are, so they show how
    reliable the overall mean is.
    """
    means = [float(part.mean()) for part in values.tensor_split(min(_STRETCHES, len(values)))]
    mean = float(values.mean())
    half = 0.0
    if len(means) > 1:
        error = float(np.std(means, ddof=1)) / len(means) ** 0.5
        half = float(t.ppf(0.975, len(means) - 1)) * error
    return Estimate(value=mean, low=mean - half, high=mean + half)
