"""Two result sets, or two layers of one, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import bootstrap

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.report.tables import best_trials, latest_speed, summary_table, warnings
from softmax_bench.study.frames import Results

if TYPE_CHECKING:
    from rich.console import Console

_MEASURED = ["step_ms", "memory_mb", "test_perplexity"]
Floats = npt.NDArray[np.float64]
_MACHINE = ["processor", "cores", "accelerator", "versions", "blas"]


@dataclass(frozen=True)
class Comparison:
    """A row a pair that was compared, and what makes the comparison less than fair."""

    table: pd.DataFrame
    """Time and memory as ratios A / B, with the ratio's bounds, and perplexity of both."""
    warnings: list[str]


def compare_results(a: Results, b: Results) -> Comparison:
    """Compare two result sets at equal layer and vocabulary size.

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
    found = [f"A: {text}" for text in warnings(a)] + [f"B: {text}" for text in warnings(b)]
    for kind, one, other in (
        ("training", best_trials(a), best_trials(b)),
        ("timing", latest_speed(a), latest_speed(b)),
    ):
        found += _differences(kind, one, other)
    found += _differences("machine", a.environments, b.environments, _MACHINE)
    table = _ratios(pairs)
    _judge(table, (a, table["layer"]), (b, table["layer"]), paired=False)
    return Comparison(table, found)


def compare_layers(results: Results, a: str, b: str) -> Comparison:
    """Compare two layers of one result set at every vocabulary size that both have.

    Raises:
        SoftmaxBenchError: A layer is not there, or they have no vocabulary size in common.
    """
    table = summary_table(results)
    known = sorted(table["layer"].unique())
    for layer in (a, b):
        if layer not in known:
            raise SoftmaxBenchError(
                f"no results for layer {layer!r}; there are: {', '.join(known)}"
            )
    rows = {layer: table[table["layer"] == layer] for layer in (a, b)}
    pairs = rows[a].merge(rows[b], on="vocab_size", suffixes=("_a", "_b"))
    if pairs.empty:
        raise SoftmaxBenchError(f"{a!r} and {b!r} have no vocabulary size in common")
    pairs["layer"] = f"{a} / {b}"
    ratios = _ratios(pairs)
    _judge(ratios, (results, [a] * len(pairs)), (results, [b] * len(pairs)), paired=True)
    return Comparison(ratios, warnings(results))


_IGNORED = {
    "id", "started", "layer", "vocab_size", "learning_rate", "seed", "phase", "seconds", "low",
    "high", "repetitions", "samples", "stopped", "machine_flops", "machine_bytes", "peak_bytes",
    "parameters", "layer_parameters", "rows_touched", "flops", "bytes", "train_tokens",
    "train_seconds", "corpus_sha256",
}  # fmt: skip
_MEASURED_PREFIXES = ("valid_", "test_", "memory_", "disturbance_")


def _differences(
    kind: str, a: pd.DataFrame, b: pd.DataFrame, fields: list[str] | None = None
) -> list[str]:
    """A warning that names the fields in which two configurations differ."""
    if a.empty or b.empty:
        return []
    if fields is None:
        fields = [
            name
            for name in a.columns
            if name not in _IGNORED and not name.startswith(_MEASURED_PREFIXES)
        ]
    differing = [
        f"{name} ({_values(a[name])} against {_values(b[name])})"
        for name in fields
        if _values(a[name]) != _values(b[name])
    ]
    if not differing:
        return []
    return [f"unlike things are compared: the {kind} differs in {', '.join(differing)}"]


def _values(column: pd.Series[object]) -> str:
    return ", ".join(sorted({str(value) for value in column}))


def _ratios(pairs: pd.DataFrame) -> pd.DataFrame:
    table = pairs[["vocab_size", "layer"]].copy()
    for missing in {f"{name}_{side}" for name in _MEASURED for side in "ab"} - set(pairs.columns):
        pairs[missing] = np.nan
    table["time_ratio"] = pairs["step_ms_a"] / pairs["step_ms_b"]
    table["memory_ratio"] = pairs["memory_mb_a"] / pairs["memory_mb_b"]
    table["perplexity_a"] = pairs["test_perplexity_a"]
    table["perplexity_b"] = pairs["test_perplexity_b"]
    table["perplexity_difference"] = table["perplexity_a"] - table["perplexity_b"]
    table["perplexity_change"] = table["perplexity_a"] / table["perplexity_b"] - 1
    return table


def _judge(
    table: pd.DataFrame,
    a: tuple[Results, Iterable[str]],
    b: tuple[Results, Iterable[str]],
    *,
    paired: bool,
) -> None:
    """Add intervals and verdicts of time and of perplexity.

    Layers of one result set took turns: their times are resampled round by round. Perplexities
    are resampled by stretches of the test text, the same of both.
    """
    times, qualities = [], []
    for size, one, other in zip(table["vocab_size"], a[1], b[1], strict=True):
        sides = ((a[0], one), (b[0], other))
        samples = [_samples(results, size, layer) for results, layer in sides]
        times.append(ratio_interval(*samples, paired=paired))
        texts = [_texts(results, size, layer) for results, layer in sides]
        qualities.append(_perplexity_interval(*texts))
    table[["time_low", "time_high"]] = times
    table["time_verdict"] = [_verdict(*bounds, "faster", "slower") for bounds in times]
    table[["perplexity_low", "perplexity_high"]] = qualities
    table["perplexity_verdict"] = [_verdict(*bounds, "better", "worse") for bounds in qualities]


def _samples(results: Results, size: int, layer: str) -> Floats | None:
    speed = latest_speed(results)
    if speed.empty:
        return None
    steps = speed[speed["phase"] == "step"].set_index(["vocab_size", "layer"])["samples"]
    samples = steps.get((size, layer))
    return None if samples is None else np.array(samples)


def _texts(results: Results, size: int, layer: str) -> pd.DataFrame:
    """Trained models, a row a seed, that know how well they predict each stretch of the text."""
    best = best_trials(results)
    if best.empty:
        return best
    same = best[(best["layer"] == layer) & (best["vocab_size"] == size)]
    return same.dropna(subset="test_block_nats")


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


def _perplexity_interval(a: pd.DataFrame, b: pd.DataFrame) -> tuple[float, float]:
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


MARGIN = 0.01
"""Ratios within one per cent of 1 are no difference, however narrow their interval: where code and
data happen to lie in memory moves times by as much."""


def _verdict(low: float, high: float, less: str, more: str) -> str:
    if np.isnan(low) or np.isnan(high):
        return ""
    if high < 1 - MARGIN:
        return f"A is {less}"
    return f"A is {more}" if low > 1 + MARGIN else "no difference found"


def render(comparison: Comparison, console: Console, *, markdown: bool = False) -> None:
    """Print a comparison, as a table or in Markdown."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    headings = [
        "V",
        "layer",
        "time A/B",
        "bounds",
        "verdict",
        "memory",
        "ppl A",
        "ppl B",
        "change",
        "bounds",
        "verdict",
    ]
    rows = [
        [
            f"{row.vocab_size:,}",
            str(row.layer),
            _number(row.time_ratio),
            "" if np.isnan(row.time_low) else f"{row.time_low:.3g}-{row.time_high:.3g}",
            row.time_verdict,
            _number(row.memory_ratio),
            _number(row.perplexity_a, 4),
            _number(row.perplexity_b, 4),
            "" if np.isnan(row.perplexity_change) else f"{row.perplexity_change:+.1%}",
            ""
            if np.isnan(row.perplexity_low)
            else f"{row.perplexity_low - 1:+.1%} to {row.perplexity_high - 1:+.1%}",
            row.perplexity_verdict,
        ]
        for row in comparison.table.itertuples()
    ]
    if markdown:
        for line in [headings, ["---"] * len(headings), *rows]:
            console.out("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |")
    else:
        table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
        for heading in headings:
            wraps = heading in ("layer", "verdict")
            table.add_column(heading, no_wrap=not wraps, min_width=12 if wraps else None)
        for line in rows:
            table.add_row(*[cell.replace("[", r"\[") for cell in line])
        console.print(table)
    for warning in comparison.warnings:
        console.print(f"Warning: {warning}.", style="yellow", markup=False, highlight=False)


def _number(value: float, digits: int = 3) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}g}"
