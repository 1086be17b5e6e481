"""Charts drawn by matplotlib, for papers and other pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from softmax_bench.report.plots.chart import Axis, Chart, Dots, Lines, Panel, Rows, Series, Stack
from softmax_bench.report.style import GREY, INK, PARTS, Look, number_text, short, two_digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis as MatplotlibAxis

_LINE = 0.17
"""Vertical space between labels, in inches."""
_APART = 14
"""Points over which lines are spread that are drawn apart."""
_PANELS = 3
"""Most panels side by side; of more, the first, the middle and the last are drawn."""
_ROOM = 90
"""Pixels between rings that leave room for a label."""
_REFERENCE = Look(GREY, GREY, "_", (1.5, 1.5))
_plain = FuncFormatter(lambda value, _: f"{value:,.10g}")


def draw(chart: Chart, looks: Mapping[str, Look]) -> Figure:
    """Draw a chart with the look of its layers."""
    panels: Sequence[Any] = chart.panels
    if len(panels) > _PANELS:
        panels = [panels[0], panels[len(panels) // 2], panels[-1]]
    most = max(_labels(panel) for panel in panels)
    height = max(4.2, 1.3 + _LINE * most) if isinstance(chart, Lines) else 1.5 + 0.3 * most
    width = 7.2 if len(panels) == 1 else 5.4 * len(panels)
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if isinstance(chart, Lines):
            _draw_lines(axes, chart, panel, looks)
        elif isinstance(chart, Dots):
            _draw_dots(axes, chart, panel, looks)
        else:
            _draw_stack(axes, chart, panel)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    if isinstance(chart, Stack):
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=5,
            frameon=False, fontsize=9, handlelength=1, columnspacing=1.2,
        )  # fmt: skip
    if len(panels) == 1 and panels[0].title:
        figure.suptitle(f"{chart.title}, {panels[0].title}", x=0.01, ha="left", fontsize=11)
    else:
        figure.suptitle(chart.title, x=0.01, ha="left", fontsize=11)
        for axes, panel in zip(figure.axes, panels, strict=True):
            axes.set_title(panel.title, loc="left", fontsize=10, color=INK)
    return figure


def _labels(panel: Panel | Rows) -> int:
    if isinstance(panel, Panel):
        return sum(series.curve == 0 for series in panel.series)
    return len(panel.rows) + len(panel.references)


def _draw_lines(axes: Axes, chart: Lines, panel: Panel, looks: Mapping[str, Look]) -> None:
    axes.set(xscale="log" if chart.x.log else "linear", yscale="log" if chart.y.log else "linear")
    for place, series in enumerate(panel.series):
        style = _style(series, looks)
        x, y = np.array(series.x), np.array(series.y)
        error = None
        if series.low is not None and series.high is not None:
            error = np.maximum(0, [y - np.array(series.low), np.array(series.high) - y])
            error = np.nan_to_num(error)
        if series.step:
            axes.step(x, y, where="post", **style)
        else:
            drawn = axes.errorbar(x, y, yerr=error, capsize=2, **style)
            if chart.apart:
                points = _APART * ((place + 0.5) / len(panel.series) - 0.5)
                aside = ScaledTranslation(points / 72, 0, axes.figure.dpi_scale_trans)
                for artist in drawn.get_children():
                    artist.set_transform(axes.transData + aside)
    for x_at, y_at, _ in panel.rings:
        axes.plot(
            x_at, y_at, "o", markersize=11, markerfacecolor="none", markeredgecolor=INK, zorder=4
        )
    _dress(axes, chart.x, "x")
    _dress(axes, chart.y, "y")
    _name_rings(axes, panel)
    _label_lines(axes, panel.series, looks)


def _name_rings(axes: Axes, panel: Panel) -> None:
    """Label the rings, above those with enough room: most lines run below a crossing."""
    axes.autoscale_view()
    places = axes.transData.transform([ring[:2] for ring in panel.rings] or np.empty((0, 2)))
    for number, (x, y, _) in enumerate(panel.rings):
        others = np.delete(places, number, axis=0)
        if not len(others) or np.hypot(*(others - places[number]).T).min() > _ROOM:
            axes.annotate(
                f"≈ {two_digits(x)}", (x, y), (-2, 7), textcoords="offset points",
                ha="center", va="bottom", fontsize=8, color=INK,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )  # fmt: skip


def _style(series: Series, looks: Mapping[str, Look]) -> dict[str, Any]:
    look = _REFERENCE if series.layer is None else looks[series.layer]
    return {
        "color": look.colour,
        "linestyle": (0, look.dash) if look.dash else "-",
        "linewidth": 1.5,
        "marker": look.marker if series.markers else "",
        "markersize": 5,
        "zorder": 1 if series.layer is None else 2,
    }


def _dress(axes: Axes, axis: Axis, which: Literal["x", "y"]) -> None:
    """Draw an axis title, a light grid, and ticks at round numbers or given positions."""
    drawn: MatplotlibAxis = axes.xaxis if which == "x" else axes.yaxis
    drawn.set_label_text(axis.title)
    drawn.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    if axis.ticks is None:
        if axis.log:
            _few_ticks(drawn)
        return
    places = [place for place, _ in axis.ticks]
    if which == "x":
        # Leave room on both sides even if there is only one position.
        if axis.log:
            axes.set_xlim(min(places) / 1.2, max(places) * 1.2)
        else:
            axes.set_xlim(min(places) - 0.3, max(places) + 0.3)
    lines = any("\n" in name for _, name in axis.ticks)
    drawn.set_ticks(places, [name for _, name in axis.ticks])
    axes.tick_params(axis=which, labelsize=8 if lines else 10)
    drawn.set_minor_formatter(NullFormatter())


def _few_ticks(axis: MatplotlibAxis) -> None:
    """Round numbers on a logarithmic axis, however short or long it is."""
    low, high = axis.get_view_interval()
    if high / low < 5:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    elif high / low < 100:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(_plain)
    axis.set_minor_formatter(NullFormatter())


def _label_lines(axes: Axes, lines: Sequence[Series], looks: Mapping[str, Look]) -> None:
    """Write each line's name beside its end, moved apart so that no two overlap."""
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    named = [series for series in lines if series.curve == 0]
    # Ends of lines as fractions of the axes, which no layout changes.
    places = [to_axes.transform((series.x[-1], series.y[-1])) for series in named]
    ends = sorted(zip(places, named, strict=True), key=lambda end: float(end[0][1]))
    figure = axes.get_figure(root=True)
    assert figure is not None
    room = _LINE / (figure.get_figheight() - 1.2)
    heights = spread([min(1.0, max(0.0, float(place[1]))) for place, _ in ends], room, 0.0, 1.05)
    for at, (place, series) in zip(heights, ends, strict=True):
        style = _style(series, looks)
        beside: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
        axes.text(1.045, at, short(series.name), color=INK, fontsize=9, va="center",
                  parse_math=False, **beside)  # fmt: skip
        for line in (
            *axes.plot([place[0], 1.03], [place[1], at], color=style["color"], linewidth=0.6,
                       alpha=0.5, zorder=1, **beside),
            *axes.plot([1.03], [at], color=style["color"], marker=style["marker"] or "_",
                       markersize=4, **beside),
        ):  # fmt: skip
            line.set_in_layout(False)


def spread(positions: Sequence[float], room: float, low: float, high: float) -> list[float]:
    """Ascending positions, moved as little as needed to be ``room`` apart and within bounds."""
    # Groups of positions that would touch share the space around their common centre.
    runs: list[list[float]] = []

    def bottom(run: Sequence[float]) -> float:
        length = room * len(run)
        lowest = sum(run) / len(run) - length / 2
        return max(low, min(lowest, high - length))

    for place in positions:
        runs.append([place])
        while len(runs) > 1 and bottom(runs[-2]) + room * len(runs[-2]) > bottom(runs[-1]):
            last = runs.pop()
            runs[-1] += last
    return [bottom(run) + room * (place + 0.5) for run in runs for place in range(len(run))]


def _draw_dots(axes: Axes, chart: Dots, panel: Rows, looks: Mapping[str, Look]) -> None:
    axes.set_xscale("log" if chart.x.log else "linear")
    rows = list(reversed(panel.rows))
    for place, row in enumerate(rows):
        look = looks[row.layer]
        value = row.values[0]
        error = None
        if row.low is not None and row.high is not None:
            error = [[max(0.0, value - row.low)], [max(0.0, row.high - value)]]
        axes.errorbar(
            value, place, xerr=error, capsize=3, color=look.colour, marker=look.marker,
            markersize=7,
        )  # fmt: skip
        axes.annotate(
            number_text(value, 4), (max(value, row.high or value), place), (9, 0),
            textcoords="offset points", va="center", fontsize=9, color=INK,
        )  # fmt: skip
    for name, value in panel.references:
        axes.axvline(value, color=GREY, linestyle=":", zorder=0)
        axes.annotate(
            f"{short(name)} {number_text(value, 4)}", (value, len(rows) - 0.45), fontsize=8,
            color=GREY, ha="center", va="bottom", parse_math=False, annotation_clip=False,
        )  # fmt: skip
    _name_rows(axes, [short(row.layer) for row in rows])
    axes.margins(x=0.12)
    _dress(axes, chart.x, "x")


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.set_ylim(-0.6, len(names) - 0.4)


def _draw_stack(axes: Axes, chart: Stack, panel: Rows) -> None:
    rows = list(reversed(panel.rows))
    values = np.array([row.values for row in rows])
    share = values / values.sum(axis=1, keepdims=True) * 100
    left = np.zeros(len(rows))
    for part, name, shade in zip(share.T, chart.parts, PARTS, strict=False):
        axes.barh(
            range(len(rows)), part, left=left, color=shade, label=name, height=0.7,
            edgecolor="white", linewidth=0.8,
        )  # fmt: skip
        left += part
    totals = [f"{short(row.layer)}  {number_text(sum(row.values))} {chart.unit}" for row in rows]
    _name_rows(axes, totals)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share [%]")
