"""Intervals of medians, on noise whose median is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import bootstrap

from softmax_bench.intervals import Floats, correlation_time, median_interval


def wander(rng: np.random.Generator, length: int, memory: float) -> Floats:
    """A stationary autoregression with standard normal values."""
    noise = rng.standard_normal(length + 200) * np.sqrt(1 - memory**2)
    return lfilter([1.0], [1.0, -memory], noise)[200:]


@pytest.mark.parametrize(
    ("length", "memory", "least"),
    [(10, 0.0, 0.92), (30, 0.0, 0.92), (200, 0.0, 0.92), (200, 0.5, 0.89), (200, 0.8, 0.86)],
)
def test_intervals_cover_the_median(length: int, memory: float, least: float) -> None:
    rng = np.random.default_rng(0)
    repeats, covered = 300, 0
    for _ in range(repeats):
        low, high = median_interval(np.exp(0.1 * wander(rng, length, memory)), resamples=200)
        covered += low <= 1 <= high
    assert least <= covered / repeats <= 0.99


def test_the_plain_bootstrap_would_not_do() -> None:
    """On the last of these processes it covers half of the time."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        samples = wander(rng, 200, 0.8)
        plain = bootstrap((samples,), np.median, n_resamples=200, method="percentile", rng=rng)
        covered += plain.confidence_interval.low <= 0 <= plain.confidence_interval.high
    assert covered < 65


@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_the_correlation_time_is_that_of_the_process(memory: float) -> None:
    """Of a Gaussian process's sign: autocorrelations are 2/pi arcsin(memory^lag)."""
    expected = 1 + 2 * sum(2 / np.pi * np.arcsin(memory**lag) for lag in range(1, 200))
    found = correlation_time(wander(np.random.default_rng(0), 20_000, memory))
    assert found == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("samples", [[3.0], [2.0, 2.0, 2.0]])
def test_what_does_not_vary(samples: list[float]) -> None:
    assert median_interval(samples) == (samples[0], samples[0])


def test_few_samples() -> None:
    for length in range(2, 6):
        low, high = median_interval(np.arange(1.0, length + 1))
        assert low < (length + 1) / 2 < high
