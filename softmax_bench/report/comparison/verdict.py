"""Intervals of ratios, and the verdicts that they justify."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, ttest_ind

from softmax_bench.intervals import Floats, median_interval

MARGIN = 0.01
"""Times within one per cent of each other count as equal, however narrow their interval is, because
the memory layout of code and data shifts them by as much. It does not affect perplexities.
"""
SHOWN = 0.0005
"""Perplexities closer than this differ by 0.0 %, and no reader can use a verdict on that."""


def ratio_interval(
    a: Floats | None, b: Floats | None, *, paired: bool
) -> tuple[float, float, float]:
    """Ratio A / B of times with its 95 % interval; missing if either is unknown.

    For pairs, it is the median of their ratios, in which a temporarily slower machine cancels out;
    otherwise it is the ratio of the medians, whose intervals are combined (Donner & Zou 2012). In
    both cases, autocorrelated samples widen the interval.

    Args:
        a: Samples of A, in the order in which they were taken.
        b: Samples of B.
        paired: Whether samples at the same position were taken one after the other.
    """
    if a is None or b is None or min(len(a), len(b)) < 2:
        return np.nan, np.nan, np.nan
    if paired:
        ratios = np.log(a[: len(b)] / b[: len(a)])
        low, high = median_interval(ratios)
        return float(np.exp(np.median(ratios))), float(np.exp(low)), float(np.exp(high))
    log_a, log_b = np.log(a), np.log(b)
    (low_a, high_a), (low_b, high_b) = median_interval(log_a), median_interval(log_b)
    middle_a, middle_b = float(np.median(log_a)), float(np.median(log_b))
    down = np.hypot(middle_a - low_a, high_b - middle_b)
    up = np.hypot(high_a - middle_a, middle_b - low_b)
    difference = middle_a - middle_b
    return (
        float(np.exp(difference)),
        float(np.exp(difference - down)),
        float(np.exp(difference + up)),
    )


def perplexity_interval(a: pd.DataFrame, b: pd.DataFrame) -> tuple[float, float]:
    """Interval of perplexity A / B on stretches of one text; missing if the texts differ.

    Each side's seeds are averaged, and the text is resampled with the same stretches for both. If
    both have several seeds, the variation between seeds widens the interval (Welch). With one seed,
    the interval applies to these two models only.
    """
    if a.empty or b.empty or set(a["corpus_sha256"]) != set(b["corpus_sha256"]):
        return np.nan, np.nan
    sides = [np.array(side["test_block_nats"].tolist()) for side in (a, b)]
    total = float(a["test_tokens"].iloc[0])
    one, other = (side.mean(axis=0) for side in sides)
    difference = (one - other) / total
    middle = low = high = float(difference.sum())
    if len(difference) > 1 and np.ptp(difference) > 0:
        low, high = bootstrap(
            (difference,), np.sum, n_resamples=2000, method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    seeds = _welch(*(side.sum(axis=1) / total for side in sides))
    return (
        float(np.exp(middle - np.hypot(middle - low, seeds))),
        float(np.exp(middle + np.hypot(high - middle, seeds))),
    )


def _welch(a: Floats, b: Floats) -> float:
    """Half the width of Welch's 95 % interval of a difference of means; 0 for single values."""
    if min(len(a), len(b)) < 2 or np.ptp(a) == np.ptp(b) == 0:
        return 0.0
    interval = ttest_ind(a, b, equal_var=False).confidence_interval()
    return float(interval.high - interval.low) / 2


def verdict(low: float, high: float, less: str, more: str, margin: float = 0.0) -> str:
    """The verdict, ``less`` or ``more``, that an interval of A / B justifies, if any; or nothing.

    Args:
        low: Lower bound of the ratio; missing if it is unknown.
        high: Upper bound.
        less: What A is if the ratio is below 1, such as ``"faster"``.
        more: What A is if the ratio is above 1.
        margin: How far from 1 the whole interval must be.
    """
    if np.isnan(low) or np.isnan(high):
        return ""
    if high < 1 - margin:
        return f"A is {less}"
    return f"A is {more}" if low > 1 + margin else "no difference found"
