"""The smaller tables of the page, as text."""

from __future__ import annotations

from typing import Any

import pandas as pd

from softmax_bench.records.frames import Results
from softmax_bench.report.style import two_digits
from softmax_bench.report.tables.caveats import MACHINE
from softmax_bench.report.tables.disturbed import MARK
from softmax_bench.report.tables.selection import best_trials, configuration_fields, latest_speed


def scaling_rows(scaling: pd.DataFrame) -> list[list[str]]:
    """Slopes as text, for layers that were timed at two or more sizes."""
    if scaling.empty:
        return []
    shown = scaling[scaling["sizes"] > 1]
    return [
        [
            str(row.layer),
            f"{row.slope:.2f}" + (MARK if row.doubt else ""),
            "" if pd.isna(row.slope_low) else f"{row.slope_low:.2f} to {row.slope_high:.2f}",
            f"{row.first_slope:.2f}",
            f"{row.last_slope:.2f}",
            _faster_text(row.faster_from) + (MARK if row.doubt else ""),
            _bend_text(row),
        ]
        for row in shown.itertuples()
    ]


def _bend_text(row: Any) -> str:
    """``V = 10,000: 0.05 (-0.02 to 0.11), then 0.98 (0.92 to 1.04)``."""
    if pd.isna(row.bend):
        return ""
    before = f"{row.slope_before:.2f} ({row.slope_before_low:.2f} to {row.slope_before_high:.2f})"
    after = f"{row.slope_after:.2f} ({row.slope_after_low:.2f} to {row.slope_after_high:.2f})"
    return f"V = {row.bend:,.0f}: {before}, then {after}"


def _faster_text(size: float) -> str:
    if pd.isna(size):
        return ""
    return "everywhere" if size == 0 else f"V = {two_digits(size)}"


def tuning_rows(tuning: pd.DataFrame) -> list[list[str]]:
    """The results of tuning."""
    return [
        [
            f"{row.vocab_size:,}",
            str(row.layer),
            f"{row.trials:,}",
            f"{row.tokens:,}",
            f"{row.valid_perplexity:.4g}",
            f"{row.learning_rate:g}" + (", bracketed" if row.bracketed else ", not bracketed"),
            f"{row.near_low:g} to {row.near_high:g}",
            str(row.tuned or ""),
        ]
        for row in tuning.itertuples()
    ]


def price_rows(prices: pd.DataFrame) -> list[list[str]]:
    """Perplexity and seconds at equal cost or quality."""
    return [
        [
            f"{row.vocab_size:,}",
            str(row.layer),
            f"{row.target:.4g}",
            "" if pd.isna(row.seconds_to_target) else f"{row.seconds_to_target:.3g}",
            f"{row.equal_seconds:.3g}",
            ""
            if pd.isna(row.perplexity_at_equal_seconds)
            else f"{row.perplexity_at_equal_seconds:.4g}",
            f"{row.perplexity_at_equal_tokens:.4g}",
            "" if pd.isna(row.last_gain) else f"{row.last_gain:.1%}",
            ""
            if pd.isna(row.perplexity_at_convergence)
            else f"{row.perplexity_at_convergence:.4g}",
        ]
        for row in prices.itertuples()
    ]


def configurations(results: Results) -> list[dict[str, Any]]:
    """Settings common to all layers in training and in timing, and the machines."""
    tables = []
    for title, kind, frame in (
        ("Training, equal for all layers", "train", best_trials(results)),
        ("Timing, equal for all layers", "speed", latest_speed(results)),
    ):
        if not frame.empty:
            equal = [f for f in configuration_fields(kind) if frame[f].nunique(dropna=False) == 1]
            shared = [field for field in equal if field not in ("layer", "vocab_size")]
            (fields,) = _distinct(frame[shared].iloc[:1])
            tables.append({"title": title, "fields": fields})
    machines = [
        rows.drop(columns="id") for _, rows in results.environments.groupby(MACHINE, dropna=False)
    ]
    for number, rows in enumerate(machines, 1):
        of = f" {number} of {len(machines)}" if len(machines) > 1 else ""
        tables.append({"title": f"Machine{of}", "fields": _all_values(_distinct(rows))})
    return tables


def _all_values(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Each field, with every value that it had."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: "; ".join(dict.fromkeys(row[name] for row in rows if name in row)) for name in names
    }


def _distinct(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The distinct rows of a table, as text without missing values."""
    seen: list[dict[str, Any]] = []
    for row in frame.to_dict("records"):
        plain = {str(key): _plain(key, value) for key, value in row.items()}
        plain = {key: value for key, value in plain.items() if value}
        if plain not in seen:
            seen.append(plain)
    return seen


def _plain(key: object, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {text}" for name, text in value.items())
    if key == "memory_bytes":
        return f"{value / 2**30:.1f} GiB"
    return "" if value is None or pd.isna(value) else str(value)
