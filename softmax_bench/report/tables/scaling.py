"""How step time grows with the vocabulary, and where a layer becomes faster than full softmax."""

from __future__ import annotations

import numpy as np
import pandas as pd

from softmax_bench.intervals import Floats
from softmax_bench.records.frames import Results, derived
from softmax_bench.report.style import two_digits
from softmax_bench.report.tables.disturbed import disturbance_text, disturbances
from softmax_bench.report.tables.selection import latest_speed


@derived
def scaling_table(results: Results) -> pd.DataFrame:
    """One row per layer: the slope of log step time on log V, and where it crosses full softmax.

    ``slope`` is that of a line through all sizes, with its 95 % interval ``slope_low``,
    ``slope_high`` (missing for two sizes); ``first_slope`` and ``last_slope`` are those between the
    two smallest and the two largest sizes. 0 means that time does not depend on V, 1 that it is
    proportional to it. If one line does not fit, there are two that meet at one of the sizes:
    ``bend`` is that size, and ``slope_before`` and ``slope_after`` are their slopes, with intervals
    derived from those of the times. ``faster_from`` is the interpolated V from which the layer is
    faster than full softmax; it is 0 if it is faster at every measured size, and missing if it is
    not even at the largest. ``smallest`` is the smallest V of the line. Disturbed times are left
    out if two sizes or more remain; otherwise, ``doubt`` says what disturbed them.
    """
    speed = latest_speed(results)
    if speed.empty:
        return pd.DataFrame()
    steps = speed[speed["phase"] == "step"].sort_values("vocab_size")
    calm = steps[[not disturbances(steps.loc[[place]]) for place in steps.index]]
    full = _calm_enough(steps, calm, "full").set_index("vocab_size")["seconds"]
    rows = []
    for layer in sorted(steps["layer"].unique()):
        used = _calm_enough(steps, calm, layer)
        times = used.set_index("vocab_size")
        seconds = times["seconds"]
        rows.append(
            {"layer": layer, "sizes": len(seconds), **_slopes(seconds), **_pieces(times)}
            | {"faster_from": np.nan if layer == "full" else _crossing(seconds, full)}
            | {"smallest": int(times.index.min()), "doubt": disturbance_text(used)}
        )
    return pd.DataFrame(rows)


def _calm_enough(steps: pd.DataFrame, calm: pd.DataFrame, layer: str) -> pd.DataFrame:
    """The undisturbed times of a layer, or all times if these are too few for a line."""
    own, all_own = (frame[frame["layer"] == layer] for frame in (calm, steps))
    return own if len(own) > 1 or len(own) == len(all_own) else all_own


def _slopes(seconds: pd.Series[float]) -> dict[str, float]:
    from scipy.stats import linregress, t

    x, y = np.log(seconds.index.to_numpy(dtype=float)), np.log(seconds.to_numpy())
    if len(x) < 2:
        return dict.fromkeys(
            ("slope", "slope_low", "slope_high", "first_slope", "last_slope"), np.nan
        )
    fit = linregress(x, y)
    half = t.ppf(0.975, len(x) - 2) * fit.stderr if len(x) > 2 else np.nan
    local = np.diff(y) / np.diff(x)
    return {
        "slope": float(fit.slope),
        "slope_low": float(fit.slope - half),
        "slope_high": float(fit.slope + half),
        "first_slope": float(local[0]),
        "last_slope": float(local[-1]),
    }


_LEAST_ERROR = 0.02
"""Least relative error of a time: intervals do not include the effect of memory layout."""


def _pieces(times: pd.DataFrame) -> dict[str, float]:
    """Slopes of the two lines that fit best, if they fit much better than one (chi-squared)."""
    from scipy.stats import chi2

    names = ("slope_before", "slope_after")
    nothing = {f"{name}{end}": np.nan for name in names for end in ("", "_low", "_high")}
    nothing["bend"] = np.nan
    if len(times) < 4:
        return nothing
    x, y = np.log(times.index.to_numpy(dtype=float)), np.log(times["seconds"].to_numpy(dtype=float))
    error = np.log(times["high"] / times["low"]).to_numpy(dtype=float) / (2 * 1.96)
    error = np.maximum(error, _LEAST_ERROR)

    def fit(*slopes: Floats) -> tuple[Floats, Floats, float]:
        """Coefficients, their covariance, and the weighted residual sum of squares."""
        design = np.stack([np.ones_like(x), *slopes], 1) / error[:, None]
        coefficients = np.linalg.lstsq(design, y / error)[0]
        rest = float(((design @ coefficients - y / error) ** 2).sum())
        return coefficients, np.linalg.inv(design.T @ design), rest

    knots = [fit(np.minimum(x, knot), np.maximum(x - knot, 0)) for knot in x[1:-1]]
    best = int(np.argmin([rest for _, _, rest in knots]))
    coefficients, covariance, rest = knots[best]
    if fit(x)[2] - rest < chi2.ppf(0.99, 2):  # one more slope, and a position
        return nothing
    pieces = {"bend": float(times.index[best + 1])}
    for place, name in enumerate(names, 1):
        half = 1.96 * float(np.sqrt(covariance[place, place]))
        slope = float(coefficients[place])
        pieces |= {name: slope, f"{name}_low": slope - half, f"{name}_high": slope + half}
    return pieces


def _crossing(seconds: pd.Series[float], full: pd.Series[float]) -> float:
    """Where the log ratio of the times, linear between sizes, stays below 0 from then on."""
    both = pd.concat([seconds, full], axis=1, keys=["own", "full"]).dropna()
    if both.empty:
        return np.nan
    size = np.log(both.index.to_numpy(dtype=float))
    behind = np.log(both["own"].to_numpy() / both["full"].to_numpy())
    slower = np.flatnonzero(behind >= 0)
    if not slower.size:
        return 0.0
    last = slower[-1]
    if last == len(behind) - 1:
        return np.nan
    share = behind[last] / (behind[last] - behind[last + 1])
    return float(np.exp(size[last] + share * (size[last + 1] - size[last])))


def crossing_sentences(table: pd.DataFrame) -> list[str]:
    """Sentences that say from which V on each layer pays off."""
    sentences = []
    of_full = "" if table.empty else "".join(table.loc[table["layer"] == "full", "doubt"])
    for row in table.itertuples() if not table.empty else ():
        if row.layer == "full" or "full" not in set(table["layer"]):
            continue
        if np.isnan(row.faster_from):
            statement = "is not faster than full softmax at any size measured"
        elif row.faster_from == 0:
            statement = f"is faster than full softmax from V = {row.smallest:,} on"
        else:
            statement = (
                f"is faster than full softmax from about V = {two_digits(row.faster_from)} on"
            )
        doubt = " (doubtful, as the timing was disturbed)" if row.doubt or of_full else ""
        sentences.append(f"{row.layer} {statement}{doubt}")
    return sentences
