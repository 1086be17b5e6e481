"""The report as files: PNG and SVG plots, tables, and one self-contained HTML page."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd

from softmax_bench.report import plots
from softmax_bench.report.price import price_table
from softmax_bench.report.scaling import crossing_sentences, scaling_table
from softmax_bench.report.tables import (
    best_trials,
    configuration_fields,
    format_table,
    latest_speed,
    markdown_table,
    summary_table,
    warnings,
)
from softmax_bench.study.frames import Results, load_results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(results_folder: Path, out: Path | None = None) -> Path:
    """Write the report of a store.

    Args:
        results_folder: The store.
        out: Folder to write into, ``report`` inside the store by default.

    Returns:
        Path of the HTML page.

    Raises:
        SoftmaxBenchError: There are no results, or one is damaged.
    """
    results = load_results(results_folder)
    out = results_folder / "report" if out is None else out
    out.mkdir(parents=True, exist_ok=True)
    table = summary_table(results)
    _write(out / "table.csv", table.to_csv(index=False).encode())
    _write(out / "table.md", markdown_table(table).encode())
    for name, derived in (("scaling", scaling_table(results)), ("price", price_table(results))):
        if not derived.empty:
            _write(out / f"{name}.csv", derived.to_csv(index=False).encode())
    drawn = []
    for name, (draw, caption) in plots.PLOTS.items():
        figure = draw(results)
        if figure is None:
            continue
        _write(out / f"{name}.png", _render(figure, "png"))
        svg = _render(figure, "svg")
        _write(out / f"{name}.svg", svg)
        drawn.append({"name": name, "caption": caption, "svg": svg[svg.index(b"<svg") :].decode()})
    page = out / "index.html"
    _write(page, _html(results, table, drawn).encode())
    return page


def answer(table: pd.DataFrame) -> list[str]:
    """What the results say about the largest vocabulary measured, in sentences."""
    sentences = []
    if "step_ms" in table:
        timed = table.dropna(subset="step_ms")
        size = timed["vocab_size"].max()
        at = timed[timed["vocab_size"] == size]
        fastest = at.loc[at["step_ms"].idxmin()]
        sentence = (
            f"At V = {size:,} the fastest layer is {fastest['layer']}: {fastest['step_ms']:.3g} ms "
            "a training step"
        )
        if fastest["layer"] != "full" and pd.notna(fastest["speedup"]):
            sentence += f", {fastest['speedup']:.3g} times faster than full softmax"
        sentences.append(sentence + ".")
    if "test_perplexity" in table:
        trained = table.dropna(subset="test_perplexity")
        size = trained["vocab_size"].max()
        at = trained[trained["vocab_size"] == size].sort_values("test_perplexity")
        best = at.iloc[0]
        others = [
            f"{row.layer} {row.test_perplexity / best['test_perplexity'] - 1:+.1%}"
            for row in at.iloc[1:].itertuples()
        ]
        sentences.append(
            f"The lowest test perplexity at V = {size:,} has {best['layer']}: "
            f"{best['test_perplexity']:.4g}" + (f" ({', '.join(others)})." if others else ".")
        )
    return sentences


def _html(results: Results, table: pd.DataFrame, drawn: list[dict[str, str]]) -> str:
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    scaling = scaling_table(results)
    smallest = int(table["vocab_size"].min())
    environment = Environment(
        loader=PackageLoader("softmax_bench.report"), autoescape=True, trim_blocks=True
    )
    text = format_table(table)
    return environment.get_template("report.html.jinja").render(
        answer=answer(table),
        warnings=warnings(results),
        crossings=crossing_sentences(scaling, smallest),
        scaling=_scaling_rows(scaling),
        prices=_price_rows(price_table(results)),
        # Drawn by matplotlib here, which escapes the names it writes.
        plots=[plot | {"svg": Markup(plot["svg"])} for plot in drawn],
        columns=list(text.columns),
        rows=text.to_numpy().tolist(),
        environments=_distinct(results.environments.drop(columns="id")),
        configurations=_configurations(results),
    )


def _scaling_rows(scaling: pd.DataFrame) -> list[list[str]]:
    """Slopes as text, for layers that were timed at two sizes at least."""
    if scaling.empty:
        return []
    shown = scaling[scaling["sizes"] > 1]
    return [
        [
            str(row.layer),
            f"{row.slope:.2f}",
            "" if pd.isna(row.slope_low) else f"{row.slope_low:.2f} to {row.slope_high:.2f}",
            f"{row.first_slope:.2f}",
            f"{row.last_slope:.2f}",
        ]
        for row in shown.itertuples()
    ]


def _price_rows(prices: pd.DataFrame) -> list[list[str]]:
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
        ]
        for row in prices.itertuples()
    ]


def _configurations(results: Results) -> list[dict[str, Any]]:
    """What was equal for all layers: training, then timing."""
    shown = []
    for title, kind, frame in (
        ("Training", "train", best_trials(results)),
        ("Timing", "speed", latest_speed(results)),
    ):
        if not frame.empty:
            equal = [f for f in configuration_fields(kind) if frame[f].nunique(dropna=False) == 1]
            fields = {f: frame[f].iloc[0] for f in equal if f not in ("layer", "vocab_size")}
            shown.append({"title": title, "fields": fields})
    return shown


def _distinct(frame: pd.DataFrame) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    for row in frame.to_dict("records"):
        plain = {str(key): value for key, value in row.items()}
        if plain not in seen:
            seen.append(plain)
    return seen


def _render(figure: Figure, kind: str) -> bytes:
    file = io.BytesIO()
    # A fixed salt and no date: the same results give the same file.
    with mpl.rc_context({"svg.hashsalt": "softmax-bench", "svg.fonttype": "path"}):
        figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
