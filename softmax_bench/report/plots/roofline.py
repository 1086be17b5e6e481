"""A training step relative to what the machine can do."""

from __future__ import annotations

import numpy as np
import pandas as pd

from softmax_bench.records.frames import Results
from softmax_bench.report.plots.chart import Axis, Chart, Lines, Panel, Series, layer_line
from softmax_bench.report.tables.disturbed import disturbed_note
from softmax_bench.report.tables.selection import latest_speed
from softmax_bench.report.tables.summary import summary_table


def roofline(results: Results) -> Chart | None:
    """Achieved rate of forward and backward against operations per byte, under the roofline."""
    speed = latest_speed(results)
    table = summary_table(results)
    if "of_possible" not in table or table["of_possible"].isna().all():
        return None
    steps = speed[speed["phase"] == "step"].merge(
        table[["vocab_size", "layer", "of_possible"]], on=["vocab_size", "layer"]
    )
    flops, width = float(steps["machine_flops"].max()), float(steps["machine_bytes"].max())
    # Nothing can be above the roof: then the rates were measured on a busier machine than the
    # steps.
    above = int((steps["of_possible"] > 1).sum())
    steps = steps[steps["of_possible"] <= 1].sort_values("vocab_size")
    if steps.empty:
        return None
    steps["intensity"] = steps["flops"] / steps["bytes"]
    steps["rate"] = steps["of_possible"] * np.minimum(flops, steps["intensity"] * width) / 1e9
    series = [
        layer_line(layer, rows["intensity"], rows["rate"]) for layer, rows in steps.groupby("layer")
    ]
    low, high = steps["intensity"].min() / 2, steps["intensity"].max() * 2
    edge = sorted({low, high, *([flops / width] if low < flops / width < high else [])})
    roof = [min(flops, at * width) / 1e9 for at in edge]
    series.append(Series(name="the machine", x=edge, y=roof, markers=False))
    half = _bfloat16_rate(steps)
    if half:
        series.append(
            Series(name="bfloat16 products", x=[low, high], y=[half / 1e9] * 2, markers=False)
        )
    return Lines(
        name="roofline",
        title=f"Roofline: products at {flops / 1e9:.0f} GFLOP/s, memory at {width / 1e9:.0f} GB/s",
        caption="Drawing, forward and backward compared with the limits of the machine: the rate "
        "of a large matrix product, or of a large copy, both measured just before. Each line goes "
        "from the smallest V to the largest. The rate of bfloat16 products is shown as well."
        + (
            f" {above} of {above + len(steps)} steps are left out: they were faster than the roof, "
            "which was measured while the machine was busier."
            if above
            else ""
        )
        + " ".join(["", *disturbed_note(speed)]),
        x=Axis("floating-point operations per byte that must move", log=True),
        y=Axis("achieved [GFLOP/s]", log=True),
        panels=[Panel("", series)],
    )


def _bfloat16_rate(steps: pd.DataFrame) -> float:
    """Operations per second of large products in half precision; 0 if unknown."""
    if "machine_products" not in steps:
        return 0.0
    rates = [rates["bfloat16"] for rates in steps["machine_products"].dropna()]
    return float(np.median(rates)) if rates else 0.0
