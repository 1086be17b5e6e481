"""Two result sets, or two layers of one, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.intervals import Floats
from softmax_bench.records.frames import Results
from softmax_bench.report.comparison.differences import differences
from softmax_bench.report.comparison.verdict import (
    MARGIN,
    SHOWN,
    perplexity_interval,
    ratio_interval,
    verdict,
)
from softmax_bench.report.tables.caveats import warnings
from softmax_bench.report.tables.disturbed import disturbances
from softmax_bench.report.tables.selection import best_trials, latest_speed
from softmax_bench.report.tables.summary import summary_table

_MEASURED = ["step_ms", "memory_mb", "test_perplexity"]


@dataclass(frozen=True)
class Comparison:
    """One row per compared pair, and reasons why the comparison may be unfair."""

    a: str
    """Name of A: the origin of its results, or a layer."""
    b: str
    table: pd.DataFrame
    """Time, memory and perplexity as ratios A / B, with bounds and a verdict for those that were
    sampled (``time_ratio``, ``time_low``, ``time_high``, ``time_verdict``). ``time_disturbed`` says
    which side's timing was disturbed and how; it is empty if neither was.
    """
    warnings: list[str]


def compare_results(a: Results, b: Results, *, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """Compare two result sets at equal layer and vocabulary size.

    Args:
        a: The first set.
        b: The second set.
        names: Names of the two, for the reader.

    Raises:
        SoftmaxBenchError: They have no layer and vocabulary size in common.
    """
    pairs = summary_table(a).merge(
        summary_table(b), on=["vocab_size", "layer"], suffixes=("_a", "_b")
    )
    if pairs.empty:
        raise SoftmaxBenchError(
            "nothing to compare: the two result sets have no layer and vocabulary size in common"
        )
    caveats = [f"A: {text}" for text in warnings(a)] + [f"B: {text}" for text in warnings(b)]
    caveats += differences(a, b)
    table = _ratios(pairs)
    _judge(table, (a, table["layer"]), (b, table["layer"]), paired=False)
    return Comparison(*names, table, caveats + _without_interval(table))


def compare_layers(results: Results, a: str, b: str, *, paired: bool = True) -> Comparison:
    """Compare two layers of one result set at every vocabulary size that both have.

    Args:
        results: The result set.
        a: A layer.
        b: Another layer.
        paired: Whether the layers were timed in alternation.

    Raises:
        SoftmaxBenchError: A layer has no results, or they have no vocabulary size in common.
    """
    table = summary_table(results)
    layers = sorted(table["layer"].unique())
    for layer in (a, b):
        if layer not in layers:
            raise SoftmaxBenchError(
                f"no results for layer {layer!r}; there are: {', '.join(layers)}"
            )
    rows = {layer: table[table["layer"] == layer] for layer in (a, b)}
    pairs = rows[a].merge(rows[b], on="vocab_size", suffixes=("_a", "_b"))
    if pairs.empty:
        raise SoftmaxBenchError(f"{a!r} and {b!r} have no vocabulary size in common")
    pairs["layer"] = f"{a} / {b}"
    ratios = _ratios(pairs)
    _judge(ratios, (results, [a] * len(pairs)), (results, [b] * len(pairs)), paired=paired)
    return Comparison(a, b, ratios, warnings(results) + _without_interval(ratios))


def _ratios(pairs: pd.DataFrame) -> pd.DataFrame:
    table = pairs[["vocab_size", "layer"]].copy()
    for missing in {f"{name}_{side}" for name in _MEASURED for side in "ab"} - set(pairs.columns):
        pairs[missing] = np.nan
    table["time_ratio"] = pairs["step_ms_a"] / pairs["step_ms_b"]
    table["memory_ratio"] = pairs["memory_mb_a"] / pairs["memory_mb_b"]
    table["perplexity_a"] = pairs["test_perplexity_a"]
    table["perplexity_b"] = pairs["test_perplexity_b"]
    table["perplexity_ratio"] = table["perplexity_a"] / table["perplexity_b"]
    return table


def _judge(
    table: pd.DataFrame,
    a: tuple[Results, Iterable[str]],
    b: tuple[Results, Iterable[str]],
    *,
    paired: bool,
) -> None:
    """Add intervals and verdicts of time and of perplexity."""
    # No interval can reveal a machine that was busy throughout, so verdicts of disturbed times are
    # marked.
    times, disturbed, qualities = [], [], []
    for size, one, other in zip(table["vocab_size"], a[1], b[1], strict=True):
        sides = ((a[0], one), (b[0], other))
        steps = [_steps(results, size, layer) for results, layer in sides]
        times.append(ratio_interval(*map(_samples, steps), paired=paired))
        disturbed.append(_disturbed(*steps))
        texts = [_texts(results, size, layer) for results, layer in sides]
        qualities.append(perplexity_interval(*texts))
    ratios = pd.Series([ratio for ratio, _, _ in times], index=table.index)
    table["time_ratio"] = ratios.fillna(table["time_ratio"])  # from medians alone, without samples
    table[["time_low", "time_high"]] = [bounds[1:] for bounds in times]
    table["time_disturbed"] = disturbed
    table["time_verdict"] = [
        _marked(verdict(low, high, "faster", "slower", MARGIN), why)
        for (_, low, high), why in zip(times, disturbed, strict=True)
    ]
    table[["perplexity_low", "perplexity_high"]] = qualities
    table["perplexity_verdict"] = [
        verdict(*bounds, "better", "worse", SHOWN) for bounds in qualities
    ]


def _steps(results: Results, size: int, layer: str) -> pd.DataFrame:
    """The timed steps of a layer: one row, or none."""
    speed = latest_speed(results)
    if speed.empty:
        return speed
    same = (speed["layer"] == layer) & (speed["vocab_size"] == size)
    return speed[same & (speed["phase"] == "step")]


def _samples(steps: pd.DataFrame) -> Floats | None:
    samples = None if steps.empty else steps["samples"].iloc[0]
    return np.array(samples) if isinstance(samples, list) else None  # older records have none


def _disturbed(a: pd.DataFrame, b: pd.DataFrame) -> str:
    """Which sides were disturbed and how: ``"A: other processes took 42% of the processor"``."""
    sides = {"A": disturbances(a), "B": disturbances(b)}
    return "; ".join(f"{side}: {', '.join(reasons)}" for side, reasons in sides.items() if reasons)


def _marked(text: str, disturbed: str) -> str:
    if not disturbed:
        return text
    return f"{text} (disturbed)" if text else "disturbed"


def _texts(results: Results, size: int, layer: str) -> pd.DataFrame:
    """Trained models, one row per seed, with their losses on each stretch of the text."""
    best = best_trials(results)
    if best.empty:
        return best
    same = best[(best["layer"] == layer) & (best["vocab_size"] == size)]
    return same.dropna(subset="test_block_nats")


def _without_interval(table: pd.DataFrame) -> list[str]:
    """A warning about ratios whose uncertainty is unknown."""
    caveats = []
    for metric, needed in (("time", "single times"), ("perplexity", "stretches of one test text")):
        if (table[f"{metric}_ratio"].notna() & table[f"{metric}_low"].isna()).any():
            caveats.append(f"some ratios of {metric} have no interval: the records lack {needed}")
    return caveats
