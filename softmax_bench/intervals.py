"""Confidence intervals of medians of successive, and therefore autocorrelated, samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def median_interval(samples: npt.ArrayLike, resamples: int = 1000) -> tuple[float, float]:
    """95 % interval of the median of successive samples.

    The percentile bootstrap assumes independent samples. On a machine whose speed drifts, n samples
    are not independent and carry less information. So the interval is widened by the square root of
    the :func:`correlation_time` tau, and further by the ratio of Student's quantile at n / tau
    samples to the normal one.

    Args:
        samples: At least one, in the order in which they were taken.
        resamples: Number of bootstrap resamples.
    """
    # Imported here because it would be half of the start-up time of processes that time nothing.
    from scipy.stats import bootstrap, norm, t

    array = np.asarray(samples, dtype=float)
    middle = float(np.median(array))
    if array.min() == array.max():  # a single sample, or a clock that does not advance
        return middle, middle
    low, high = bootstrap(
        (array,), np.median, n_resamples=resamples, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    tau = correlation_time(array)
    wider = float(np.sqrt(tau)) * float(
        t.ppf(0.975, max(1.0, len(array) / tau - 1)) / norm.ppf(0.975)
    )
    return middle - wider * (middle - float(low)), middle + wider * (float(high) - middle)


def correlation_time(samples: Floats) -> float:
    """Number of successive samples worth one independent sample for the median; at least 1.

    The variance of a median depends on which samples lie above it. This is ``1 + 2 sum of
    autocorrelations`` of that indicator, summed in pairs as long as the pairs are positive (Geyer
    1992), over lags of up to a third of the samples.
    """
    above = (samples > np.median(samples)).astype(float)
    above -= above.mean()
    variance = float(above @ above)
    if variance == 0:
        return 1.0
    lags = len(above) // 3
    correlation = [float(above[lag:] @ above[: len(above) - lag]) for lag in range(lags + 1)]
    total = -1.0
    for even in range(0, len(correlation) - 1, 2):
        pair = (correlation[even] + correlation[even + 1]) / variance
        if pair <= 0:
            break
        total += 2 * pair
    return max(1.0, total)
