"""The report as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import msgspec
import pandas as pd

from softmax_bench.records.frames import Results
from softmax_bench.report.plots import Chart, chart_frame
from softmax_bench.report.show.answer import answer, level_with_best, winners
from softmax_bench.report.show.command import commands
from softmax_bench.report.show.method import method
from softmax_bench.report.show.page_sections import (
    configurations,
    price_rows,
    scaling_rows,
    tuning_rows,
)
from softmax_bench.report.style import MOST_NAMED, PARTS, Look
from softmax_bench.report.tables.caveats import MACHINE, warnings
from softmax_bench.report.tables.disturbed import MARK, cell_doubt, mark_notes
from softmax_bench.report.tables.price import price_table
from softmax_bench.report.tables.scaling import crossing_sentences, scaling_table
from softmax_bench.report.tables.selection import best_trials
from softmax_bench.report.tables.shown import COLUMNS, ESSENTIAL, cell_text, shown_columns
from softmax_bench.report.tables.summary import summary_table
from softmax_bench.report.tables.tuning import tuning_table

_LOWEST_IS_BEST: dict[str, tuple[str, str] | None] = {
    "test_perplexity": ("test_low", "test_high"),
    "excess": None,
    "train_seconds": None,
    "step_ms": ("step_low_ms", "step_high_ms"),
    "memory_mb": None,
}
"""Columns whose best values are bold, and the ends of their intervals."""


def render_page(results: Results, charts: Sequence[Chart], looks: Mapping[str, Look]) -> str:
    """The HTML of the report.

    Names of layers and corpora may contain anything: Jinja escapes them in the page, and the script
    writes them as text. The page's content security policy allows no other script and no loading.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    templates = files("softmax_bench.report") / "templates"
    script = "".join((templates / name).read_text("utf-8") for name in ("charts.js", "page.js"))
    table = summary_table(results)
    scaling = scaling_table(results)
    sizes = sorted(int(size) for size in table["vocab_size"].unique())
    shown = shown_columns(table)
    environment = Environment(
        loader=PackageLoader("softmax_bench.report"), autoescape=True, trim_blocks=True
    )
    return environment.get_template("report.html.jinja").render(
        style=Markup((templates / "report.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(_data(charts, looks, table[shown])),
        looks=looks,
        numbers={layer: number for number, layer in enumerate(looks)},
        parts=PARTS,
        answer=answer(results),
        subtitle=_subtitle(results),
        criteria=winners(results),
        sizes=sizes,
        warnings=warnings(results),
        charts=charts,
        columns=[
            {"name": name, "heading": COLUMNS[name], "more": name not in ESSENTIAL}
            for name in shown
        ],
        rows=_rows(table, shown),
        marks=mark_notes(table),
        prices=price_rows(price_table(results)),
        tuning=tuning_rows(tuning_table(results)),
        crossings=crossing_sentences(scaling),
        scaling=scaling_rows(scaling),
        method=method(results),
        commands=commands(results),
        configurations=configurations(results),
    )


def _data(charts: Sequence[Chart], looks: Mapping[str, Look], table: pd.DataFrame) -> str:
    """The script's data, as JSON that cannot end the element that contains it."""
    content = {
        "charts": [
            _short(msgspec.to_builtins(chart, enc_hook=float))
            | {"data": _split(chart_frame(chart))}
            for chart in charts
        ],
        "looks": {
            layer: {"number": number, "marker": look.marker, "dash": look.dash}
            for number, (layer, look) in enumerate(looks.items())
        },
        "most_named": MOST_NAMED,
        "table": _split(table),
    }
    # NaN and infinity become null.
    text = msgspec.json.encode(content, enc_hook=float).decode()
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _short(value: Any) -> Any:
    """Round every number to six digits; the files beside the page have all of them."""
    if isinstance(value, dict):
        return {key: _short(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_short(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _split(frame: pd.DataFrame) -> dict[str, Any]:
    rows = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    return {"columns": frame.columns.tolist(), "rows": _short(rows)}


def _rows(table: pd.DataFrame, shown: Sequence[str]) -> list[dict[str, Any]]:
    best = {
        (size, name): _best(group, name)
        for size, group in table.groupby("vocab_size")
        for name in _LOWEST_IS_BEST
        if name in shown
    }
    rows = []
    previous = None
    for row in table.to_dict("records"):
        cells = [
            {
                "text": cell_text(name, row[name]) + (MARK if cell_doubt(name, row) else ""),
                "value": "" if pd.isna(row[name]) else row[name],
                "best": row["layer"] in best.get((row["vocab_size"], name), ()),
                "doubt": cell_doubt(name, row),
            }
            for name in shown
        ]
        size = int(row["vocab_size"])
        rows.append(
            {"layer": row["layer"], "size": size, "first": size != previous, "cells": cells}
        )
        previous = size
    return rows


def _best(rows: pd.DataFrame, column: str) -> list[str]:
    """The best layers at one size; none if any of them is unreliable."""
    if any(cell_doubt(column, row) for row in rows.to_dict("records")):
        return []
    return level_with_best(rows, column, _LOWEST_IS_BEST[column])


def _subtitle(results: Results) -> str:
    """What was compared, on which data, and when."""
    table = summary_table(results)
    parts = [f"{table['layer'].nunique()} layers"]
    best = best_trials(results)
    if not best.empty:
        tokens = best["train_tokens"].iloc[0]
        parts.append(f"trained on {tokens:,.0f} tokens of {best['corpus'].iloc[0]}")
    machines = results.environments[MACHINE].drop_duplicates()
    machine = machines.iloc[-1]
    cores = f"{machine['cores']} core{'s' if machine['cores'] > 1 else ''}"
    description = f"{machine['processor']}, {cores}"
    parts.append(description if len(machines) == 1 else f"{len(machines)} machines")
    days = sorted(
        str(started)[:10]
        for frame in (results.train, results.speed, results.divergences)
        if not frame.empty
        for started in frame["started"]
    )
    parts.append(days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}")
    return " · ".join(parts)
