"""The summary from which a report is made: one row per layer and vocabulary size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from softmax_bench.records.frames import Results, derived
from softmax_bench.records.trial import ngram_name
from softmax_bench.report.tables.disturbed import DOUBTS, disturbance_text, step_doubt
from softmax_bench.report.tables.fidelity import fidelity_table
from softmax_bench.report.tables.selection import KEY, TUNED, best_trials, latest_speed

PHASES = ("draw", "forward", "backward", "clip", "optimizer", "evaluation", "decoding")
LEAST_SEEDS = 3
"""Fewer seeds give no interval: Student's, of two, would be 13 standard errors to either side."""
_MEMORY = ("activations", "gradients", "optimizer")


def references(results: Results) -> pd.DataFrame:
    """Perplexities that belong to no layer: of the source itself, and of an n-gram model.

    One row per reference and vocabulary size, for the texts of :func:`best_trials`: ``reference``,
    ``vocab_size``, ``valid_perplexity``, ``test_perplexity``, ``excess`` (relative to the
    source's).
    """
    best = best_trials(results)
    columns = ["reference", "vocab_size", "valid_perplexity", "test_perplexity", "excess"]
    rows: list[dict[str, Any]] = []
    if best.empty:
        return pd.DataFrame(rows, columns=columns)
    source = best.dropna(subset="test_true_perplexity").drop_duplicates("vocab_size")
    rows += [
        {"reference": "the source itself", "vocab_size": row.vocab_size}
        | {"valid_perplexity": row.valid_true_perplexity}
        | {"test_perplexity": row.test_true_perplexity, "excess": 1.0}
        for row in source.itertuples()
    ]
    if not results.ngrams.empty:
        of_these_texts = results.ngrams[results.ngrams["corpus_sha256"].isin(best["corpus_sha256"])]
        rows += [
            {"reference": ngram_name(row.order, _whole(row.max_tokens))}
            | {"vocab_size": row.vocab_size}
            | {"valid_perplexity": row.valid_perplexity, "test_perplexity": row.test_perplexity}
            | {"excess": row.test_perplexity / (row.test_true_perplexity or np.nan)}
            for row in of_these_texts.itertuples()
        ]
    return pd.DataFrame(rows, columns=columns).sort_values(columns[:2], ignore_index=True)


def _whole(number: float | None) -> int | None:
    """A whole number or None, which pandas turns into a float and NaN in a column of both."""
    return None if number is None or np.isnan(number) else int(number)


@derived
def summary_table(results: Results) -> pd.DataFrame:
    """One row per layer and vocabulary size, sorted; unmeasured values are missing.

    ``excess`` is test perplexity relative to that of the true source, if known, and ``over_full``
    relative to that of full softmax, with the ends of its interval over :data:`LEAST_SEEDS` seeds
    or more; ``speedup`` is the step time of full softmax at the same V relative to the layer's;
    ``divergence`` and ``gradient_*`` are those of
    :func:`softmax_bench.report.tables.fidelity.fidelity_table`. ``step_doubt`` and ``train_doubt``
    say in words why the times are unreliable.
    """
    table = pd.DataFrame(columns=KEY)
    for part in (_quality(results), _speed(results), _fidelity(results)):
        if not part.empty:
            table = part if table.empty else table.merge(part, on=KEY, how="outer")
    for doubt in DOUBTS:
        if doubt in table:
            table[doubt] = table[doubt].astype(object).where(table[doubt].notna(), "")
    return table.sort_values(KEY).reset_index(drop=True)


def _fidelity(results: Results) -> pd.DataFrame:
    table = fidelity_table(results)
    names = {
        "divergence": "divergence",
        "bias": "gradient_bias",
        "variance": "gradient_variance",
        "cosine": "gradient_cosine",
        "effective_samples": "effective_samples",
        "num_samples": "gradient_samples",
        "learned_log_z_mean": "learned_log_z_mean",
        "learned_log_z_sd": "learned_log_z_sd",
    }
    measured = [name for name in names if name in table]
    return table[[*KEY, *measured]].rename(columns=names) if measured else table


def _quality(results: Results) -> pd.DataFrame:
    best = best_trials(results)
    if best.empty:
        return best
    measured = {
        "valid_perplexity": "valid_perplexity",
        "test_perplexity": "test_perplexity",
        "true_perplexity": "test_true_perplexity",
        "adjusted_perplexity": "test_adjusted_perplexity",
        "bits_per_byte": "test_bits_per_byte",
        "train_perplexity": "train_perplexity",
        "unnormalized_perplexity": "test_unnormalized_perplexity",
        "log_z_mean": "test_log_z_mean",
        "log_z_sd": "test_log_z_sd",
        "top1": "test_top1",
        "top10": "test_top10",
        "ndcg10": "test_ndcg10",
        "train_tokens": "train_tokens",
        "train_seconds": "train_seconds",
    }
    best = best.astype(dict.fromkeys(measured.values(), float))
    groups = best.groupby(KEY)
    table = groups[list(measured.values())].mean()
    table.columns = pd.Index(list(measured))
    table[["corpus", *TUNED]] = groups[["corpus", *TUNED]].first()
    if not table["tuned"].any():
        table = table.drop(columns="tuned")
    table["seeds"] = groups.size()
    doubts = {key: disturbance_text(rows) for key, rows in groups}
    table["train_doubt"] = [doubts[key] for key in table.index]
    half = _half_interval(groups["test_perplexity"])
    table["test_low"] = table["test_perplexity"] - half
    table["test_high"] = table["test_perplexity"] + half
    table["excess"] = table["test_perplexity"] / table["true_perplexity"]
    table = table.join(_over_full(best))
    if np.allclose(table["adjusted_perplexity"], table["test_perplexity"]):
        table = table.drop(columns="adjusted_perplexity")  # no unknown words to charge for
    return table.reset_index()


def _over_full(best: pd.DataFrame) -> pd.DataFrame:
    """Ratio of test perplexity to full softmax's, of the same seed after the same budget."""
    same = ["vocab_size", "max_tokens", "seed"]
    nats = best.pivot_table(index=same, columns="layer", values="test_nats")
    if "full" not in nats:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []], names=KEY))
    pairs = nats.sub(nats["full"], axis=0).stack().dropna().groupby(level=KEY)
    half = _half_interval(pairs)
    shifts = {"over_full": 0.0, "over_full_low": -half, "over_full_high": half}
    return pd.DataFrame({name: np.exp(pairs.mean() + shift) for name, shift in shifts.items()})


def _half_interval(groups: Any) -> pd.Series[float]:
    """Half of Student's 95 % interval of each group's mean over seeds."""
    seeds = groups.size()
    half: pd.Series[float] = groups.sem() * t.ppf(0.975, (seeds - 1).clip(lower=1))
    return half.where(seeds >= LEAST_SEEDS)


def _speed(results: Results) -> pd.DataFrame:
    speed = latest_speed(results)
    if speed.empty:
        return speed
    step = speed[speed["phase"] == "step"].set_index(KEY)
    table = pd.DataFrame(
        {
            "step_ms": step["seconds"] * 1e3,
            "step_low_ms": step["low"] * 1e3,
            "step_high_ms": step["high"] * 1e3,
            "memory_mb": step["peak_bytes"] / 1e6,
            "parameters": step["parameters"],
            "rows_touched": step["rows_touched"],
            "repetitions": step["repetitions"],
            "stopped": step["stopped"],
            "gflops": step["flops"] / step["seconds"] / 1e9,
            "gbytes": step["bytes"] / step["seconds"] / 1e9,
        }
    )
    for part in _MEMORY:
        if f"memory_{part}" in step:
            table[f"{part}_mb"] = step[f"memory_{part}"].astype(float) / 1e6
    for phase in PHASES:
        table[f"{phase}_ms"] = speed[speed["phase"] == phase].set_index(KEY)["seconds"] * 1e3
    if "machine_flops" in step:
        # The best rate seen, since one measured on a busy machine is not a bound.
        products = step["flops"] / step["machine_flops"].astype(float).max()
        traffic = step["bytes"] / step["machine_bytes"].astype(float).max()
        passes = table[["draw_ms", "forward_ms", "backward_ms"]].sum(axis=1, min_count=2) / 1e3
        table["of_possible"] = np.maximum(products, traffic) / passes
        table["bound"] = np.where(products >= traffic, "compute", "memory")
        table.loc[table["of_possible"].isna(), "bound"] = ""
    table["step_doubt"] = [step_doubt(row) for _, row in step.iterrows()]
    table = table.reset_index()
    full = table.loc[table["layer"] == "full"].set_index("vocab_size")["step_ms"]
    table["speedup"] = table["vocab_size"].map(full) / table["step_ms"]
    of_full = table.loc[table["layer"] == "full"].set_index("vocab_size")["step_doubt"]
    table["full_doubt"] = table["vocab_size"].map(of_full)
    return table
