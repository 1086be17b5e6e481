"""Two result sets, or two layers of one, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.report.tables import best_trials, latest_speed, summary_table, warnings
from softmax_bench.study.store import Results

if TYPE_CHECKING:
    from rich.console import Console

_MEASURED = ["step_ms", "step_low_ms", "step_high_ms", "memory_mb", "test_perplexity"]
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
    return Comparison(_ratios(pairs, ["vocab_size", "layer"]), found)


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
    return Comparison(_ratios(pairs, ["vocab_size", "layer"]), warnings(results))


_IGNORED = {
    "id", "started", "layer", "vocab_size", "learning_rate", "phase", "seconds", "low", "high",
    "repetitions", "peak_bytes", "parameters", "layer_parameters", "rows_touched", "flops", "bytes",
    "train_tokens", "train_seconds", "corpus_sha256",
}  # fmt: skip


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
            if name not in _IGNORED and not name.startswith(("valid_", "test_"))
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


def _ratios(pairs: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    table = pairs[key].copy()
    measured = {f"{name}_{side}" for name in _MEASURED for side in "ab"}
    for missing in measured - set(pairs.columns):
        pairs[missing] = np.nan
    table["time_ratio"] = pairs["step_ms_a"] / pairs["step_ms_b"]
    # Bounds of the ratio: the ends of the two intervals that are furthest from each other.
    table["time_low"] = pairs["step_low_ms_a"] / pairs["step_high_ms_b"]
    table["time_high"] = pairs["step_high_ms_a"] / pairs["step_low_ms_b"]
    table["time_verdict"] = [
        _verdict(low, high) for low, high in zip(table["time_low"], table["time_high"], strict=True)
    ]
    table["memory_ratio"] = pairs["memory_mb_a"] / pairs["memory_mb_b"]
    table["perplexity_a"] = pairs["test_perplexity_a"]
    table["perplexity_b"] = pairs["test_perplexity_b"]
    table["perplexity_difference"] = table["perplexity_a"] - table["perplexity_b"]
    table["perplexity_change"] = table["perplexity_a"] / table["perplexity_b"] - 1
    return table


def _verdict(low: float, high: float) -> str:
    if np.isnan(low) or np.isnan(high):
        return ""
    if high < 1:
        return "A is faster"
    return "A is slower" if low > 1 else "no difference found"


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
