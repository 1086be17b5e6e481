"""Quality at a price: what the training curves say at equal seconds and at equal perplexity."""

from __future__ import annotations

import numpy as np
import pandas as pd

from softmax_bench.report.tables import best_trials
from softmax_bench.study.frames import Results


def price_table(results: Results) -> pd.DataFrame:
    """One row a layer and vocabulary size, means over seeds, by validation perplexity.

    ``target`` is the best perplexity that every layer of this V reaches, ``seconds_to_target``
    how long training took to reach it; ``equal_seconds`` the training time of the layer that was
    done first, ``perplexity_at_equal_seconds`` where each was by then. Between two evaluations
    perplexity is interpolated, both axes logarithmic; missing where a curve begins later.
    """
    best = best_trials(results)
    if best.empty:
        return pd.DataFrame()
    rows = []
    for size, trials in best.groupby("vocab_size"):
        curves = results.curves[results.curves["id"].isin(trials["id"])]
        ends = curves.groupby("id").agg(
            lowest=("valid_perplexity", "min"), seconds=("seconds", "max")
        )
        target, equal = float(ends["lowest"].max()), float(ends["seconds"].min())
        for trial in trials.itertuples():
            curve = curves[curves["id"] == trial.id].sort_values("seconds")
            rows.append(
                {"vocab_size": size, "layer": trial.layer, "target": target, "equal_seconds": equal}
                | {"seconds_to_target": _seconds_to(target, curve)}
                | {"perplexity_at_equal_seconds": _perplexity_at(equal, curve)}
            )
    return pd.DataFrame(rows).groupby(["vocab_size", "layer"], as_index=False).mean()


def _seconds_to(target: float, curve: pd.DataFrame) -> float:
    seconds = np.log(curve["seconds"].to_numpy(dtype=float))
    # From the first evaluation at which it is reached, back to the one before.
    perplexity = np.log(curve["valid_perplexity"].to_numpy(dtype=float))
    reached = np.flatnonzero(perplexity <= np.log(target) + 1e-12)
    first = int(reached[0])
    if first == 0:
        return float(np.exp(seconds[0])) if perplexity[0] >= np.log(target) - 1e-12 else np.nan
    between = slice(first - 1, first + 1)
    place = np.interp(-np.log(target), -perplexity[between], seconds[between])
    return float(np.exp(place))


def _perplexity_at(seconds: float, curve: pd.DataFrame) -> float:
    known = np.log(curve["seconds"].to_numpy(dtype=float))
    if np.log(seconds) < known[0]:
        return np.nan
    perplexity = np.log(curve["valid_perplexity"].to_numpy(dtype=float))
    return float(np.exp(np.interp(np.log(seconds), known, perplexity)))
