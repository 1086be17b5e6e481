"""The content of a plot, independent of how it is drawn.

A chart is drawn by matplotlib (:mod:`softmax_bench.report.plots.draw`), by the page in the reader's
browser and in the terminal, and is written as CSV. All four show the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Axis:
    """One axis."""

    title: str
    """The quantity, with its unit in brackets."""
    log: bool = False
    """Whether it is initially logarithmic; positive values can be shown either way."""
    ticks: list[tuple[float, str]] | None = None
    """Tick positions and labels, if round numbers are unsuitable."""


@dataclass(frozen=True)
class Series:
    """A line, or points."""

    name: str
    """Label at its end."""
    x: list[float]
    y: list[float]
    layer: str | None = None
    """The layer that it belongs to; None for a reference, which belongs to none."""
    low: list[float] | None = None
    """Lower ends of the 95 % intervals of ``y``."""
    high: list[float] | None = None
    step: bool = False
    """A staircase instead of a line: ``y`` holds until the next ``x``."""
    markers: bool = True
    curve: int = 0
    """Distinguishes the curves of one layer (its seeds or options); only the first is labelled."""


def layer_line(
    layer: object, x: Iterable[float], y: Iterable[float], *, curve: int = 0, step: bool = False
) -> Series:
    """The line of a layer, labelled with its name; a staircase has no markers."""
    name = str(layer)
    return Series(name, list(x), list(y), layer=name, step=step, markers=not step, curve=curve)


@dataclass(frozen=True)
class Panel:
    """One coordinate system, usually for one vocabulary size."""

    title: str
    series: list[Series]
    size: int | None = None
    """The vocabulary size, if the panel is for one."""
    rings: list[tuple[float, float, str]] = field(default_factory=list)
    """Marked positions: x, y and a description."""


@dataclass(frozen=True)
class _Titled:
    name: str
    """Name of its files."""
    title: str
    caption: str


@dataclass(frozen=True)
class Lines(_Titled):
    """Lines or points over two axes."""

    x: Axis
    y: Axis
    panels: list[Panel]
    apart: bool = False
    """Whether lines are moved aside a little, so that intervals at the same place can be told."""
    kind: str = "lines"


@dataclass(frozen=True)
class Row:
    """A layer in a chart of bars or dots."""

    layer: str
    values: list[float]
    """One value per part; dots have one only."""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Rows:
    """The layers at one vocabulary size."""

    title: str
    rows: list[Row]
    size: int | None = None
    references: list[tuple[str, float]] = field(default_factory=list)
    """References, which belong to no layer: name and value."""


@dataclass(frozen=True)
class Dots(_Titled):
    """One value per layer on a common axis: replaces a line chart if there is only one V."""

    x: Axis
    panels: list[Rows]
    kind: str = "dots"


@dataclass(frozen=True)
class Stack(_Titled):
    """The parts of a value as stacked bars: shares, with the total beside the name."""

    unit: str
    parts: list[str]
    panels: list[Rows]
    kind: str = "stack"


Chart = Lines | Dots | Stack


def layers_of(chart: Chart) -> list[str]:
    """The layers that a chart shows."""
    if isinstance(chart, Lines):
        layers = [series.layer for panel in chart.panels for series in panel.series]
    else:
        layers = [row.layer for panel in chart.panels for row in panel.rows]
    return sorted({layer for layer in layers if layer is not None})


def chart_frame(chart: Chart) -> pd.DataFrame:
    """The numbers of a chart, one row per point, as in its CSV."""
    rows: list[dict[str, Any]] = []
    if isinstance(chart, Lines):
        for panel in chart.panels:
            for series in panel.series:
                rows += [
                    {"panel": panel.title, "name": series.layer or series.name}
                    | {"curve": series.curve, chart.x.title: x, chart.y.title: y}
                    | {"low": _at(series.low, place), "high": _at(series.high, place)}
                    for place, (x, y) in enumerate(zip(series.x, series.y, strict=True))
                ]
    else:
        columns = chart.parts if isinstance(chart, Stack) else [chart.x.title]
        for group in chart.panels:
            rows += [
                {"panel": group.title, "name": row.layer}
                | dict(zip(columns, row.values, strict=True))
                | {"low": row.low, "high": row.high}
                for row in group.rows
            ]
            rows += [
                {"panel": group.title, "name": name, columns[0]: value}
                for name, value in group.references
            ]
    frame = pd.DataFrame(rows)
    idle = [
        name
        for name, absent in (("panel", ""), ("curve", 0), ("low", None), ("high", None))
        if name in frame and (frame[name].isna() | (frame[name] == absent)).all()
    ]
    return frame.drop(columns=idle)


def _at(values: Sequence[float] | None, place: int) -> float | None:
    return None if values is None else values[place]
