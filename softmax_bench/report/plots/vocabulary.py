"""A value of each layer against the vocabulary size."""

from __future__ import annotations

import pandas as pd

from softmax_bench.report.plots.chart import Axis, Chart, Dots, Lines, Panel, Row, Rows, Series


def against_vocabulary(
    table: pd.DataFrame,
    column: str,
    *,
    name: str,
    title: str,
    caption: str,
    y: Axis,
    bounds: tuple[str, str] | None = None,
    beside: pd.DataFrame | None = None,
    notes: dict[str, str] | None = None,
    rings: list[tuple[float, float, str]] | None = None,
    apart: bool = False,
) -> Chart | None:
    """One line per layer and per ``reference`` in ``beside``; dots if there is only one V.

    None if no layer has a value in ``column``.

    Args:
        table: One row per layer and vocabulary size.
        column: Column to draw.
        name: Name of the chart's files.
        title: Title of the chart.
        caption: Caption of the chart.
        y: The axis of the values.
        bounds: Columns with the ends of 95 % intervals.
        beside: References: the same columns, with their names in ``reference``.
        notes: Text beside the name of a layer.
        rings: Positions to mark: x, y and a description.
        apart: Whether to draw lines apart, so that intervals at the same V can be told.
    """
    if column not in table or table[column].isna().all():
        return None
    measured = table.dropna(subset=column).sort_values("vocab_size")
    beside = pd.DataFrame() if beside is None else beside.dropna(subset=column)
    sizes = measured["vocab_size"].unique()
    if len(sizes) == 1:
        rows = [
            Row(
                layer=row["layer"],
                values=[row[column]],
                low=_bound(row, bounds, 0),
                high=_bound(row, bounds, 1),
            )
            for row in measured.sort_values(column).to_dict("records")
        ]
        references = [(row["reference"], row[column]) for row in beside.to_dict("records")]
        group = Rows(size_title(sizes[0]), rows, references=references)
        return Dots(name=name, title=title, caption=caption, x=y, panels=[group])
    series = []
    for layer, points in measured.groupby("layer"):
        spans = None if bounds is None else [points[bound].tolist() for bound in bounds]
        series.append(
            Series(
                name=str(layer) + (notes or {}).get(str(layer), ""),
                layer=str(layer),
                x=points["vocab_size"].astype(float).tolist(),
                y=points[column].tolist(),
                low=spans and spans[0],
                high=spans and spans[1],
            )
        )
    for reference, points in () if beside.empty else beside.groupby("reference"):
        points = points.sort_values("vocab_size")
        series.append(
            Series(
                name=str(reference),
                x=points["vocab_size"].astype(float).tolist(),
                y=points[column].tolist(),
            )
        )
    ticks = [(float(size), size_name(size)) for size in sizes]
    x = Axis("vocabulary size V", log=True, ticks=ticks)
    panel = Panel("", series, rings=rings or [])
    return Lines(name=name, title=title, caption=caption, x=x, y=y, panels=[panel], apart=apart)


def _bound(row: dict[str, float], bounds: tuple[str, str] | None, place: int) -> float | None:
    value = None if bounds is None else row[bounds[place]]
    return None if value is None or pd.isna(value) else value


def stacked(table: pd.DataFrame, columns: list[str]) -> list[Rows]:
    """The parts of the layers' values, one panel per vocabulary size."""
    measured = table.dropna(subset=columns)
    measured = measured.assign(total=measured[columns].sum(axis=1))
    return [
        Rows(
            size_title(int(size)),
            [
                Row(row["layer"], [float(row[column]) for column in columns])
                for row in rows.sort_values("total").to_dict("records")
            ],
            int(size),
        )
        for size, rows in measured[measured["total"] > 0].groupby("vocab_size")
    ]


def size_title(size: int) -> str:
    """Title of a panel."""
    return f"V = {size:,}"


def size_name(size: int) -> str:
    """A vocabulary size in few characters: 10k, 2.5M."""
    if size >= 1e6:
        return f"{size / 1e6:.4g}M"
    return f"{size / 1e3:.4g}k" if size >= 1e3 else f"{size:g}"
