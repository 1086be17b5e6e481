"""How sure a comparison is: intervals of ratios, and the words that they justify."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import bootstrap

Floats = npt.NDArray[np.float64]

MARGIN = 0.01
"""Ratios within one per cent of 1 are no difference, however narrow their interval: where code and
data happen to lie in memory moves times by as much."""


def ratio_interval(a: Floats | None, b: Floats | None, *, paired: bool) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio of two medians; missing where either is not known.

    Args:
        a: Samples of one.
        b: Samples of the other.
        paired: Whether samples at one place were taken one after the other.
    """
    if a is None or b is None or min(len(a), len(b)) < 2:
        return np.nan, np.nan
    if paired:
        a, b = a[: len(b)], b[: len(a)]
    if np.ptp(a) == np.ptp(b) == 0:
        return float(a[0] / b[0]), float(a[0] / b[0])

    def ratio(x: Floats, y: Floats, axis: int = -1) -> Floats:
        quotient: Floats = np.median(x, axis=axis) / np.median(y, axis=axis)
        return quotient

    interval = bootstrap(
        (a, b), ratio, paired=paired, n_resamples=2000, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)


def perplexity_interval(a: pd.DataFrame, b: pd.DataFrame) -> tuple[float, float]:
    """Interval of perplexity A / B on stretches of one text; missing where the texts differ."""
    if a.empty or b.empty or set(a["corpus_sha256"]) != set(b["corpus_sha256"]):
        return np.nan, np.nan
    # Seeds are averaged: what is resampled is the text.
    one, other = (np.mean(np.array(side["test_block_nats"].tolist()), axis=0) for side in (a, b))
    difference = one - other
    total = float(a["test_tokens"].iloc[0])
    if len(difference) < 2 or np.ptp(difference) == 0:
        value = float(np.exp(difference.sum() / total))
        return value, value
    interval = bootstrap(
        (difference,), np.sum, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(np.exp(interval.low / total)), float(np.exp(interval.high / total))


def verdict(low: float, high: float, less: str, more: str) -> str:
    """Which of the words ``less`` and ``more`` an interval of A / B justifies, if any; or nothing.

    Args:
        low: Lower bound of the ratio; missing where it is not known.
        high: Upper bound.
        less: What A is below 1, such as ``"faster"``.
        more: What A is above 1.
    """
    if np.isnan(low) or np.isnan(high):
        return ""
    if high < 1 - MARGIN:
        return f"A is {less}"
    return f"A is {more}" if low > 1 + MARGIN else "no difference found"
