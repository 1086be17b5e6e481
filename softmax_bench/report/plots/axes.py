"""What several plots have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from softmax_bench.report.style import REFERENCE, label_lines, line_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
_thousands = FuncFormatter(
    lambda value, _: (
        f"{value / 1e6:g}M"
        if value >= 1e6
        else f"{value / 1e3:g}k"
        if value >= 1e3
        else f"{value:g}"
    )
)


def against_vocabulary(
    table: pd.DataFrame, column: str, *, log: bool, beside: pd.DataFrame | None = None
) -> Figure:
    """A line a layer, and one for each reference in ``beside``."""
    figure = new_figure()
    axes = figure.subplots()
    axes.set_xscale("log")
    if log:
        axes.set_yscale("log")
    ends = []
    known = table.dropna(subset=column)
    frame_sizes(axes, known["vocab_size"])
    layers = known["layer"].unique().tolist()
    for layer, rows in known.groupby("layer"):
        rows = rows.sort_values("vocab_size")
        style = line_style(str(layer), layers)
        axes.plot(rows["vocab_size"], rows[column], **style)
        ends.append(
            (rows["vocab_size"].iloc[-1], rows[column].iloc[-1], str(layer), style["color"])
        )
    for name, rows in () if beside is None else beside.groupby("reference"):
        axes.plot(rows["vocab_size"], rows[column], **REFERENCE)
        end = rows.iloc[-1]
        ends.append((end["vocab_size"], end[column], str(name), REFERENCE["color"]))
    if log:
        few_ticks(axes.yaxis)
    label_lines(axes, ends)
    return figure


def frame_sizes(axes: Axes, sizes: pd.Series) -> None:
    """A tick at each vocabulary size, and room on both sides even where there is only one."""
    axes.set_xlim(sizes.min() / 1.2, sizes.max() * 1.2)
    axes.set_xticks(sorted(sizes.unique()))
    axes.xaxis.set_major_formatter(_thousands)
    axes.xaxis.set_minor_formatter(NullFormatter())


def few_ticks(axis: Axis) -> None:
    """Round numbers on a logarithmic axis, however little or much of it there is."""
    low, high = axis.get_view_interval()
    if high / low < 5:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    elif high / low < 100:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(plain)
    axis.set_minor_formatter(NullFormatter())
