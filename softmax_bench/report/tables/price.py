"""Quality and cost: training curves compared at equal seconds and at equal perplexity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from softmax_bench.records.frames import Results, derived
from softmax_bench.report.tables.selection import KEY, TUNED, best_trials, one_study

CONVERGED = 0.01
"""A model has converged if twice the tokens would lower its validation perplexity by less."""


@derived
def price_table(results: Results) -> pd.DataFrame:
    """One row per layer and vocabulary size: means over seeds, by validation perplexity.

    ``target`` is the best perplexity that every layer of this V reaches, and ``seconds_to_target``
    how long training took to reach it. ``equal_seconds`` is the training time of the layer that
    finished first, and ``perplexity_at_equal_seconds`` what each layer had reached by then;
    ``equal_tokens`` is analogous. Perplexity is interpolated between two evaluations, on
    logarithmic axes, and missing if a curve begins later. ``last_gain`` is the share by which
    perplexity still fell at the end per doubling of the tokens. ``perplexity_at_convergence`` is
    the lowest perplexity if training stopped early, or of a curve that fell by less than
    :data:`CONVERGED`; it is missing if training ended too soon.

    If the learning rate falls to zero over the budget, a model is good only at its end; the points
    of the curve are then the ends of all trainings of the layer with different budgets.
    """
    best = best_trials(results)
    if best.empty:
        return pd.DataFrame()
    train, _, _ = one_study(results)
    rows = []
    for size, trials in best.groupby("vocab_size"):
        curves = [_curve(results.curves, train, trial) for trial in trials.itertuples()]
        target = max(float(curve["valid_perplexity"].min()) for curve in curves)
        equal = min(float(curve["seconds"].max()) for curve in curves)
        tokens = min(float(curve["tokens"].max()) for curve in curves)
        for trial, curve in zip(trials.itertuples(), curves, strict=True):
            rows.append(
                {"vocab_size": size, "layer": trial.layer, "target": target, "equal_seconds": equal}
                | {"seconds_to_target": _seconds_to(target, curve)}
                | {"perplexity_at_equal_seconds": _perplexity_at(equal, curve, "seconds")}
                | {"equal_tokens": tokens}
                | {"perplexity_at_equal_tokens": _perplexity_at(tokens, curve, "tokens")}
                | _convergence(curve, trial)
            )
    return pd.DataFrame(rows).groupby(["vocab_size", "layer"], as_index=False).mean()


def _curve(curves: pd.DataFrame, train: pd.DataFrame, trial: Any) -> pd.DataFrame:
    if trial.schedule not in ("linear", "cosine"):
        return curves[curves["id"] == trial.id].sort_values("seconds")
    same = ~train["tuning"]
    for name in (*KEY, *TUNED, "seed"):
        same &= train[name] == getattr(trial, name)
    points = curves[curves["id"].isin(train.loc[same, "id"])]
    return points.loc[points.groupby("id")["tokens"].idxmax()].sort_values("seconds")


def _seconds_to(target: float, curve: pd.DataFrame) -> float:
    seconds = np.log(curve["seconds"].to_numpy(dtype=float))
    # Interpolate between the first evaluation that reaches it and the one before.
    perplexity = np.log(curve["valid_perplexity"].to_numpy(dtype=float))
    reached = np.flatnonzero(perplexity <= np.log(target) + 1e-12)
    first = int(reached[0])
    if first == 0:
        return float(np.exp(seconds[0])) if perplexity[0] >= np.log(target) - 1e-12 else np.nan
    between = slice(first - 1, first + 1)
    place = np.interp(-np.log(target), -perplexity[between], seconds[between])
    return float(np.exp(place))


def _perplexity_at(spent: float, curve: pd.DataFrame, of: str) -> float:
    evaluated = np.log(curve[of].to_numpy(dtype=float))
    if np.log(spent) < evaluated[0]:
        return np.nan
    perplexity = np.log(curve["valid_perplexity"].to_numpy(dtype=float))
    return float(np.exp(np.interp(np.log(spent), evaluated, perplexity)))


def _convergence(curve: pd.DataFrame, trial: Any) -> dict[str, float]:
    """Whether more tokens would still have helped, judged by the last two evaluations."""
    lowest = float(curve["valid_perplexity"].min())
    if trial.train_tokens < trial.max_tokens:
        return {"last_gain": np.nan, "perplexity_at_convergence": lowest}
    if len(curve) < 2 or trial.schedule in ("stall", "epoch"):
        return {"last_gain": np.nan, "perplexity_at_convergence": np.nan}
    (before, after), tokens = curve["valid_perplexity"].iloc[-2:], curve["tokens"].iloc[-2:]
    gain = 1 - (after / before) ** (1 / np.log2(tokens.iloc[1] / tokens.iloc[0]))
    return {
        "last_gain": float(gain),
        "perplexity_at_convergence": lowest if gain < CONVERGED else np.nan,
    }
