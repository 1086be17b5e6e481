"""How step time grows with the vocabulary, and from where on a layer beats full softmax."""

from __future__ import annotations

import numpy as np
import pandas as pd

from softmax_bench.report.tables import latest_speed
from softmax_bench.study.frames import Results


def scaling_table(results: Results) -> pd.DataFrame:
    """One row a layer: the slope of log step time on log V, and where it crosses full softmax.

    ``slope`` is that of a line through all sizes, with its 95 % interval ``slope_low``,
    ``slope_high`` (missing for two sizes); ``first_slope`` and ``last_slope`` are those between
    the two smallest and the two largest sizes: where they differ the line bends. 0 means that V
    costs nothing, 1 that time is proportional to it. ``faster_from`` is the V from which on the
    layer is faster than full softmax, interpolated; 0 where it is at every size measured, missing
    where it is not even at the largest.
    """
    speed = latest_speed(results)
    if speed.empty:
        return pd.DataFrame()
    steps = speed[speed["phase"] == "step"].sort_values("vocab_size")
    full = steps[steps["layer"] == "full"].set_index("vocab_size")["seconds"]
    rows = []
    for layer, group in steps.groupby("layer"):
        seconds = group.set_index("vocab_size")["seconds"]
        rows.append(
            {"layer": layer, "sizes": len(seconds), **_slopes(seconds)}
            | {"faster_from": np.nan if layer == "full" else _crossing(seconds, full)}
        )
    return pd.DataFrame(rows)


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


def _crossing(seconds: pd.Series[float], full: pd.Series[float]) -> float:
    """Where log time less full softmax's, linear between the sizes, goes below 0 for good."""
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


def crossing_sentences(table: pd.DataFrame, smallest: int) -> list[str]:
    """From where on each layer pays, in words."""
    sentences = []
    for row in table.itertuples() if not table.empty else ():
        if row.layer == "full" or "full" not in set(table["layer"]):
            continue
        if np.isnan(row.faster_from):
            sentences.append(f"{row.layer} is not faster than full softmax at any size measured")
        elif row.faster_from == 0:
            sentences.append(f"{row.layer} is faster than full softmax from V = {smallest:,} on")
        else:
            at = float(f"{row.faster_from:.2g}")
            sentences.append(f"{row.layer} is faster than full softmax from about V = {at:,.0f} on")
    return sentences
