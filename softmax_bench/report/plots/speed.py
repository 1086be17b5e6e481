"""Time and memory of a training step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from softmax_bench.report.plots.axes import against_vocabulary, few_ticks, frame_sizes, plain
from softmax_bench.report.style import (
    PHASE_COLOURS,
    REFERENCE,
    dress,
    label_lines,
    line_style,
    new_figure,
)
from softmax_bench.report.tables import (
    fit_slope,
    latest_speed,
    summary_table,
)
from softmax_bench.study.frames import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def step_time(results: Results) -> Figure | None:
    """Step time against V, log-log, with intervals and the fitted slope of each layer."""
    speed = latest_speed(results)
    if speed.empty:
        return None
    steps = speed[speed["phase"] == "step"]
    figure = new_figure()
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log")
    frame_sizes(axes, steps["vocab_size"])
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
    few_ticks(axes.yaxis)
    label_lines(axes, ends)
    return figure


def phases(results: Results) -> Figure | None:
    """Where the time of a step goes at the largest V, as shares of the step."""
    table = summary_table(results)
    columns = [f"{phase}_ms" for phase in ("draw", "forward", "backward", "clip", "optimizer")]
    if not set(columns) <= set(table.columns) or table["clip_ms"].isna().all():
        return None
    timed = table.dropna(subset=columns)
    size = timed["vocab_size"].max()
    rows = timed[timed["vocab_size"] == size].sort_values("step_ms", ascending=False)
    figure = new_figure(height=1.2 + 0.42 * len(rows))
    axes = figure.subplots()
    share = rows[columns].div(rows[columns].sum(axis=1), axis=0) * 100
    left = np.zeros(len(rows))
    names = [f"{row.layer}  {row.step_ms:,.3g} ms" for row in rows.itertuples()]
    for column, shade in zip(columns, PHASE_COLOURS, strict=True):
        axes.barh(names, share[column], left=left, color=shade, label=column.removesuffix("_ms"))
        left += share[column].to_numpy()
    axes.set_xlim(0, 100)
    dress(axes, x="share of the step [%]", y="", title="")
    axes.set_title(f"Where the time of a step goes, V = {size:,}", loc="left", fontsize=11, pad=24)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, frameon=False, fontsize=9,
        borderaxespad=0.1, handlelength=1,
    )  # fmt: skip
    return figure


def roofline(results: Results) -> Figure | None:
    """Achieved rate of forward and backward against operations a byte, under the machine's roof."""
    speed = latest_speed(results)
    table = summary_table(results)
    if "of_possible" not in table or table["of_possible"].isna().all():
        return None
    steps = speed[speed["phase"] == "step"].merge(
        table[["vocab_size", "layer", "of_possible"]], on=["vocab_size", "layer"]
    )
    steps = steps.dropna(subset="of_possible")
    steps["intensity"] = steps["flops"] / steps["bytes"]
    flops, width = steps["machine_flops"].median(), steps["machine_bytes"].median()
    roof = np.minimum(flops, steps["intensity"] * width)
    steps["rate"] = steps["of_possible"] * roof / 1e9
    figure = new_figure()
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log")
    ends = []
    layers = steps["layer"].unique().tolist()
    for layer, rows in steps.groupby("layer"):
        rows = rows.sort_values("vocab_size")
        style = line_style(str(layer), layers)
        axes.plot(rows["intensity"], rows["rate"], **(style | {"linewidth": 0.6}))
        end = rows.iloc[-1]
        ends.append((end["intensity"], end["rate"], str(layer), style["color"]))
    low, high = steps["intensity"].min() / 2, steps["intensity"].max() * 2
    edge = np.geomspace(low, high, 100)
    axes.plot(edge, np.minimum(flops, edge * width) / 1e9, color=REFERENCE["color"])
    ends.append((high, min(flops, high * width) / 1e9, "the machine", REFERENCE["color"]))
    axes.set_xlim(low, high)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(plain)
    dress(
        axes,
        x="floating-point operations a byte that must move",
        y="achieved [GFLOP/s]",
        title=f"Roofline: products at {flops / 1e9:.0f} GFLOP/s, memory at {width / 1e9:.0f} GB/s",
    )
    label_lines(axes, ends)
    return figure


def memory(results: Results) -> Figure | None:
    """Peak memory of forward and backward against V, log-log."""
    table = summary_table(results)
    if "memory_mb" not in table:
        return None
    figure = against_vocabulary(table, "memory_mb", log=True)
    dress(
        figure.axes[0],
        x="vocabulary size V",
        y="peak memory beyond parameters [MB]",
        title="Memory of a step: activations, scratch and gradients",
    )
    return figure
