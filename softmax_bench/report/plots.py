"""The plots of a report, each a function from results to a figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from softmax_bench.report.style import REFERENCE, dress, label_lines, line_style, new_figure
from softmax_bench.report.tables import (
    best_trials,
    fit_slope,
    latest_speed,
    references,
    summary_table,
)
from softmax_bench.study.store import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
_si = FuncFormatter(
    lambda value, _: (
        f"{value / 1e6:g}M"
        if value >= 1e6
        else f"{value / 1e3:g}k"
        if value >= 1e3
        else f"{value:g}"
    )
)


def step_time(results: Results) -> Figure | None:
    """Step time against V, log-log, with intervals and the fitted slope of each layer."""
    speed = latest_speed(results)
    if speed.empty:
        return None
    steps = speed[speed["phase"] == "step"]
    figure = new_figure()
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log")
    _frame(axes, steps["vocab_size"])
    ends = []
    layers = steps["layer"].unique().tolist()
    for layer, rows in steps.groupby("layer"):
        rows = rows.sort_values("vocab_size")
        ms = rows["seconds"] * 1e3
        error = [ms - rows["low"] * 1e3, rows["high"] * 1e3 - ms]
        style = line_style(str(layer), layers)
        axes.errorbar(rows["vocab_size"], ms, yerr=error, capsize=2, **style)
        slope = (
            f"  (~V^{fit_slope(rows['vocab_size'], rows['seconds']):.2f})" if len(rows) > 1 else ""
        )
        ends.append((rows["vocab_size"].iloc[-1], ms.iloc[-1], f"{layer}{slope}", style["color"]))
    first = steps.iloc[0]
    dress(
        axes,
        x="vocabulary size V",
        y="training step of the layer [ms]",
        title=f"Step time: {first['num_tokens']:,} targets, H={first['hidden_size']}, "
        f"{first['threads']} thread{'s' if first['threads'] > 1 else ''}, {first['optimizer']}",
    )
    _few_ticks(axes.yaxis)
    label_lines(axes, ends)
    return figure


def memory(results: Results) -> Figure | None:
    """Peak memory of forward and backward against V, log-log."""
    table = summary_table(results)
    if "memory_mb" not in table:
        return None
    figure = _against_vocabulary(table, "memory_mb", log=True)
    dress(
        figure.axes[0],
        x="vocabulary size V",
        y="peak memory beyond parameters [MB]",
        title="Memory of a step: activations, scratch and gradients",
    )
    return figure


def perplexity(results: Results) -> Figure | None:
    """Test perplexity against V, beside that of an n-gram model and, if known, the source's."""
    table = summary_table(results)
    if "test_perplexity" not in table:
        return None
    known = table["true_perplexity"].notna().any()
    figure = _against_vocabulary(table, "test_perplexity", log=True, beside=references(results))
    axes = figure.axes[0]
    dress(
        axes,
        x="vocabulary size V",
        y="test perplexity",
        title="Perplexity at equal training tokens"
        + ("" if known else " (each V is another task: compare layers at one V only)"),
    )
    return figure


def excess_perplexity(results: Results) -> Figure | None:
    """Test perplexity over that of the true source: comparable across V."""
    table = summary_table(results)
    if "excess" not in table or table["excess"].isna().all():
        return None
    figure = _against_vocabulary(table, "excess", log=False, beside=references(results))
    axes = figure.axes[0]
    dress(
        axes,
        x="vocabulary size V",
        y="test perplexity / true perplexity",
        title="Excess over the source's own perplexity (1 is perfect)",
    )
    return figure


def learning_curves(results: Results) -> Figure | None:
    """Validation perplexity against training seconds, a panel a vocabulary size."""
    best = best_trials(results)
    if best.empty:
        return None
    beside = references(results)
    sizes = sorted(best["vocab_size"].unique())
    figure = new_figure(width=max(7.2, 4.2 * len(sizes)))
    panels = figure.subplots(1, len(sizes), squeeze=False)[0]
    layers = best["layer"].unique().tolist()
    for axes, size in zip(panels, sizes, strict=True):
        axes.set(xscale="log", yscale="log")
        ends = []
        at_size = best[best["vocab_size"] == size]
        for trial in at_size.itertuples():
            curve = results.curves[results.curves["id"] == trial.id]
            style = line_style(str(trial.layer), layers) | {"markersize": 3}
            axes.plot(curve["seconds"], curve["valid_perplexity"], **style)
            ends.append(
                (
                    curve["seconds"].iloc[-1],
                    curve["valid_perplexity"].iloc[-1],
                    str(trial.layer),
                    style["color"],
                )
            )
        for row in beside[beside["vocab_size"] == size].itertuples():
            axes.axhline(row.valid_perplexity, **(REFERENCE | {"marker": ""}))
            right = axes.get_xlim()[1]
            ends.append((right, row.valid_perplexity, row.reference, REFERENCE["color"]))
        dress(axes, x="training time [s]", y="validation perplexity", title=f"V = {size:,}")
        _few_ticks(axes.xaxis)
        _few_ticks(axes.yaxis)
        label_lines(axes, ends)
    return figure


PLOTS: dict[str, tuple[Callable[[Results], Figure | None], str]] = {
    "step-time": (
        step_time,
        "Forward, backward and optimiser of the output layer alone. Bars are 95 % intervals of "
        "the median; the exponent is the slope of the line: 1 grows like V, 0 not at all.",
    ),
    "excess-perplexity": (
        excess_perplexity,
        "On the synthetic language the best possible perplexity is known exactly. What a model "
        "has above it is what it has not learned, and can be compared across vocabularies.",
    ),
    "perplexity": (
        perplexity,
        "Exact and normalised over the whole vocabulary for every layer, whatever it was trained "
        "with. The n-gram model (interpolated Kneser-Ney) counts the same text.",
    ),
    "learning-curves": (
        learning_curves,
        "Training time alone; evaluation is not counted. Every layer sees the same tokens, so a "
        "line that ends further left was faster. Dotted: what needs no training.",
    ),
    "memory": (
        memory,
        "Most bytes that tensors held at once during forward and backward, the gradients of the "
        "parameters included, the parameters not.",
    ),
}
"""Every plot with its caption, in the order of the report."""


def _against_vocabulary(
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
    _frame(axes, known["vocab_size"])
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
        _few_ticks(axes.yaxis)
    label_lines(axes, ends)
    return figure


def _frame(axes: Axes, sizes: pd.Series) -> None:
    """A tick at each vocabulary size, and room on both sides even where there is only one."""
    axes.set_xlim(sizes.min() / 1.2, sizes.max() * 1.2)
    axes.set_xticks(sorted(sizes.unique()))
    axes.xaxis.set_major_formatter(_si)
    axes.xaxis.set_minor_formatter(NullFormatter())


def _few_ticks(axis: Axis) -> None:
    """Round numbers on a logarithmic axis, however little or much of it there is."""
    low, high = axis.get_view_interval()
    if high / low < 5:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    elif high / low < 100:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(_plain)
    axis.set_minor_formatter(NullFormatter())
