"""The report in a terminal, for work on a remote machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from softmax_bench.records.frames import Results
from softmax_bench.report import plots
from softmax_bench.report.plots.chart import Axis, Chart, Lines, Panel, Series, Stack
from softmax_bench.report.show.answer import answer
from softmax_bench.report.style import family_place, number_text, printable, short
from softmax_bench.report.tables.caveats import warnings
from softmax_bench.report.tables.shown import print_table
from softmax_bench.report.tables.summary import summary_table

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = ("step-time", "perplexity", "learning-curves", "memory")
_COLOURS = ("yellow", "blue", "red", "green", "magenta", "cyan")
"""Colours of the families, in the order of the style; the terminal's theme adapts them."""
_GREY = "#888888"


def print_summary(results: Results, console: Console) -> None:
    """Print the answer, the table and the caveats."""
    said = answer(results)
    console.print(Text(printable(said.finding), style="bold"))
    if said.reserve:
        console.print(Text(printable(said.reserve)))
    print_table(summary_table(results), console)
    for warning in warnings(results):
        console.print(Text(printable(f"Warning: {warning}."), style="yellow"))


def print_report(results: Results, console: Console) -> None:
    """Print the summary and small plots."""
    print_summary(results, console)
    for chart in plots.charts(results):
        if chart.name in _SHOWN:
            console.print()
            _print_chart(chart, console)


def _print_chart(chart: Chart, console: Console) -> None:
    panel = chart.panels[-1]
    title = f"{chart.title}, {panel.title}" if panel.title else chart.title
    console.print(Text(printable(title), style="bold"))
    if isinstance(chart, Lines) and isinstance(panel, Panel):
        _print_lines(chart, panel, console)
    elif not isinstance(chart, Stack) and not isinstance(panel, Panel):
        values = [(row.layer, row.values[0]) for row in panel.rows]
        _print_bars(chart.x.title, [*values, *panel.references], console)


def _print_bars(title: str, values: Sequence[tuple[str, float]], console: Console) -> None:
    console.print(Text(title, style="dim"))
    room = max(len(short(name)) for name, _ in values)
    longest = max(value for _, value in values)
    width = max(10, min(60, console.width - room - 14))
    block = "#" if console.options.ascii_only else "█"
    for name, value in values:
        bar = block * max(1, round(width * value / longest))
        console.print(
            Text(
                f"{printable(short(name)):>{room}} {bar} {number_text(value, 4)}",
                overflow="ellipsis",
            )
        )


def _print_lines(chart: Lines, panel: Panel, console: Console) -> None:
    from uniplot import plot_to_string

    named = [series for series in panel.series if series.curve == 0]
    chosen = _most_readable(named)
    coloured = console.color_system is not None and not console.no_color
    drawn = plot_to_string(
        xs=[series.x for series in chosen],
        ys=[series.y for series in chosen],
        lines=True,
        x_as_log=_logarithmic(chart.x, [x for series in chosen for x in series.x]),
        y_as_log=_logarithmic(chart.y, [y for series in chosen for y in series.y]),
        width=max(20, min(72, console.width - 14)),
        height=14,
        color=_colours(chosen) if coloured else False,
        legend_labels=[printable(short(series.name)) for series in chosen],
        character_set="braille" if coloured else "ascii",
        force_ascii_characters=list("abcdefghij"),
    )
    console.print(Text(f"{chart.y.title} against {chart.x.title}", style="dim"))
    console.print(Text.from_ansi(drawn), soft_wrap=True)
    if len(chosen) < len(named):
        console.print(Text(f"({len(named) - len(chosen)} more lines on the page)", style="dim"))


def _most_readable(lines: Sequence[Series]) -> list[Series]:
    """As many layers as there are colours: full softmax, and those with the lowest final values."""
    layers = [one for one in lines if one.layer is not None]
    layers = sorted(layers, key=lambda one: (one.layer != "full", one.y[-1]))[: len(_COLOURS)]
    return [one for one in lines if one.layer is None or one in layers]


def _logarithmic(axis: Axis, values: Sequence[float]) -> bool:
    """Whether an axis is logarithmic and spans enough decades for labels at powers of ten."""
    return axis.log and min(values) > 0 and max(values) > 8 * min(values)


def _colours(lines: Sequence[Series]) -> list[str]:
    """The colour of each line's family, or a free one; references are grey."""
    free = list(_COLOURS)
    colours = []
    for line in lines:
        colour = _GREY
        if line.layer is not None:
            family_colour = _COLOURS[family_place(line.layer) % len(_COLOURS)]
            colour = family_colour if family_colour in free else free[0]
            free.remove(colour)
        colours.append(colour)
    return colours
