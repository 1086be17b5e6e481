"""Time and memory of a training step."""

from __future__ import annotations

import numpy as np
import pandas as pd

from softmax_bench.classes.huffman import huffman_tree
from softmax_bench.records.frames import Results
from softmax_bench.report.plots.chart import Axis, Chart, Lines, Panel, Row, Rows, Series, Stack
from softmax_bench.report.plots.vocabulary import against_vocabulary, size_title
from softmax_bench.report.style import family
from softmax_bench.report.tables.disturbed import disturbed_sizes
from softmax_bench.report.tables.price import price_table
from softmax_bench.report.tables.scaling import scaling_table
from softmax_bench.report.tables.selection import latest_speed
from softmax_bench.report.tables.summary import summary_table

_STEP_PHASES = ["draw", "forward", "backward", "clip", "optimizer"]


def step_time(results: Results) -> Chart | None:
    """Step time against V with slopes, the floor of full softmax, and crossings with it."""
    speed = latest_speed(results)
    if speed.empty:
        return None
    steps = speed[speed["phase"] == "step"].assign(
        ms=lambda table: table["seconds"] * 1e3,
        low_ms=lambda table: table["low"] * 1e3,
        high_ms=lambda table: table["high"] * 1e3,
    )
    scaling = scaling_table(results)
    first = steps.iloc[0]
    floor, rings = _floor(steps), _crossings(steps, scaling)
    told = ["The output layer alone, optimiser included. Bars are 95 % intervals of the median."]
    if steps["vocab_size"].nunique() > 1:
        told.append(
            "The exponent, where there is one, is the slope of the whole line: 1 grows as V does, "
            "0 not at all."
        )
    if not floor.empty:
        told.append(
            "The floor is what the matrix products of full softmax would take at the rate of a "
            "large product on this machine."
        )
    told += _disturbed(steps)
    if rings:
        told.append("Rings: where a layer begins to be faster than full softmax.")
    threads = f"{first['threads']} thread{'s' if first['threads'] > 1 else ''}"
    return against_vocabulary(
        steps,
        "ms",
        name="step-time",
        title=f"Time of a training step: N = {first['num_tokens']:,} targets, "
        f"H = {first['hidden_size']}, {threads}, {first['optimizer']}",
        caption=" ".join(told),
        y=Axis("training step of the layer [ms]", log=True),
        bounds=("low_ms", "high_ms"),
        beside=floor,
        notes={
            str(row.layer): f"  ~V^{row.slope:.2f}"
            for row in scaling.itertuples()
            if not np.isnan(row.slope_low) and not row.doubt  # two points fit any slope
        },
        rings=rings,
    )


def _disturbed(speed: pd.DataFrame) -> list[str]:
    """A sentence for a caption on the sizes at which times are not to be trusted."""
    sizes = ", ".join(f"{size:,}" for size in disturbed_sizes(speed))
    return [f"Disturbed, and not to be trusted, at V = {sizes}."] if sizes else []


def _floor(steps: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds of full softmax's three products, 6 N V H operations, at the machine's rate."""
    if "machine_flops" not in steps or steps["machine_flops"].isna().all():
        return pd.DataFrame({"reference": [], "vocab_size": [], "ms": []})
    floor = steps.groupby("vocab_size", as_index=False).agg(
        rate=("machine_flops", "median"), n=("num_tokens", "first"), h=("hidden_size", "first")
    )
    floor["ms"] = 6e3 * floor["n"] * floor["h"] * floor["vocab_size"] / floor["rate"].astype(float)
    return floor.assign(reference="floor of full softmax")


def _crossings(steps: pd.DataFrame, scaling: pd.DataFrame) -> list[tuple[float, float, str]]:
    full = steps[steps["layer"] == "full"].sort_values("vocab_size")
    rings = []
    for row in scaling.itertuples():
        if row.faster_from > 0 and not row.doubt:
            ms = np.exp(np.interp(np.log(row.faster_from), np.log(full["vocab_size"]),
                                  np.log(full["ms"])))  # fmt: skip
            rings.append(
                (
                    float(row.faster_from),
                    float(ms),
                    f"{row.layer} is faster than full from about V = {row.faster_from:,.2g} on"
                    if row.faster_from < 100
                    else f"{row.layer} is faster than full from about "
                    f"V = {float(f'{row.faster_from:.2g}'):,.0f} on",
                )
            )
    return rings


def phases(results: Results) -> Chart | None:
    """Where the time of a step goes, a panel a vocabulary size."""
    table = summary_table(results)
    columns = [f"{phase}_ms" for phase in _STEP_PHASES]
    if not set(columns) <= set(table.columns):
        return None
    known = table.dropna(subset=["step_ms"])
    whole = known["step_ms"] / known[columns].sum(axis=1)
    panels = _stacked(known.assign(**{name: known[name] * whole for name in columns}), columns)
    if not panels:
        return None
    return Stack(
        name="phases",
        title="Where the time of a step goes",
        caption=" ".join(
            [
                "Drawing the noise, forward, backward, clipping the gradient and the optimiser: "
                "their medians, scaled so that they add up to the median of the whole step.",
                *_disturbed(latest_speed(results)),
            ]
        ),
        unit="ms",
        parts=[*_STEP_PHASES[:-1], "optimiser"],
        panels=panels,
    )


def memory(results: Results) -> Chart | None:
    """Peak memory of forward and backward against V."""
    table = summary_table(results)
    if "memory_mb" not in table:
        return None
    return against_vocabulary(
        table,
        "memory_mb",
        name="memory",
        title="Memory of a step: activations, scratch and gradients",
        caption="Most bytes that tensors held at once during forward and backward, the gradients "
        "of the parameters included, the parameters not.",
        y=Axis("peak memory beyond parameters [MB]", log=True),
    )


def memory_parts(results: Results) -> Chart | None:
    """What the memory of training a layer is for, a panel a vocabulary size."""
    speed = latest_speed(results)
    parts = ["parameters", "optimizer", "gradients", "activations"]
    if not {f"memory_{part}" for part in parts} <= set(speed.columns):
        return None
    steps = speed[speed["phase"] == "step"]
    columns = {part: steps[f"memory_{part}"].astype(float) / 1e6 for part in parts}
    panels = _stacked(steps[["vocab_size", "layer"]].assign(**columns), parts)
    if not panels:
        return None
    return Stack(
        name="memory-parts",
        title="What the memory of training a layer is for",
        caption="Parameters and the optimiser's state stay; gradients and activations are those "
        "of one step.",
        unit="MB",
        parts=["parameters", "optimiser", "gradients", "activations and scratch"],
        panels=panels,
    )


def _stacked(table: pd.DataFrame, columns: list[str]) -> list[Rows]:
    known = table.dropna(subset=columns)
    known = known.assign(total=known[columns].sum(axis=1))
    return [
        Rows(
            size_title(int(size)),
            [
                Row(row["layer"], [float(row[column]) for column in columns])
                for row in rows.sort_values("total").to_dict("records")
            ],
            int(size),
        )
        for size, rows in known[known["total"] > 0].groupby("vocab_size")
    ]


def roofline(results: Results) -> Chart | None:
    """Achieved rate of forward and backward against operations a byte, under the machine's roof."""
    speed = latest_speed(results)
    table = summary_table(results)
    if "of_possible" not in table or table["of_possible"].isna().all():
        return None
    steps = speed[speed["phase"] == "step"].merge(
        table[["vocab_size", "layer", "of_possible"]], on=["vocab_size", "layer"]
    )
    flops, width = float(steps["machine_flops"].max()), float(steps["machine_bytes"].max())
    # Above the roof there is nothing: the rates were measured on a busier machine than the steps.
    above = int((steps["of_possible"] > 1).sum())
    steps = steps[steps["of_possible"] <= 1].sort_values("vocab_size")
    if steps.empty:
        return None
    steps["intensity"] = steps["flops"] / steps["bytes"]
    steps["rate"] = steps["of_possible"] * np.minimum(flops, steps["intensity"] * width) / 1e9
    series = [
        Series(
            name=str(layer),
            layer=str(layer),
            x=rows["intensity"].tolist(),
            y=rows["rate"].tolist(),
        )
        for layer, rows in steps.groupby("layer")
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
        caption="Draw, forward and backward against what the machine can do at most: a large "
        "matrix product's rate, or a large copy's, both measured just before. A line goes from "
        "the smallest V to the largest. What products in bfloat16 could do is shown beside it."
        + (
            f" {above} steps came out faster than the roof allows and are left out: the roof was "
            "measured on a busier machine than they were."
            if above
            else ""
        )
        + " ".join(["", *_disturbed(speed)]),
        x=Axis("floating-point operations a byte that must move", log=True),
        y=Axis("achieved [GFLOP/s]", log=True),
        panels=[Panel("", series)],
    )


def _bfloat16_rate(steps: pd.DataFrame) -> float:
    """Operations a second of large products in half precision; 0 where it is not known."""
    if "machine_products" not in steps:
        return 0.0
    rates = [rates["bfloat16"] for rates in steps["machine_products"].dropna()]
    return float(np.median(rates)) if rates else 0.0


def profile(results: Results) -> Chart | None:
    """Performance profiles (Dolan & Moré 2002): how often a layer is within a factor of the best.

    The problems are all that was measured of the layers' time: a training step, evaluation and
    decoding at each V, and training to the target perplexity.
    """
    problems: list[pd.Series[float]] = []
    speed = latest_speed(results)
    if not speed.empty:
        shown = speed[speed["phase"].isin(["step", "evaluation", "decoding"])]
        problems += [
            rows.set_index("layer")["seconds"] for _, rows in shown.groupby(["vocab_size", "phase"])
        ]
    prices = price_table(results)
    if not prices.empty:
        problems += [
            rows.set_index("layer")["seconds_to_target"].dropna()
            for _, rows in prices.groupby("vocab_size")
        ]
    problems = [seconds for seconds in problems if len(seconds) > 1]
    if len(problems) < 3:
        return None  # shares of one or two say nothing
    # A layer that was not measured, or failed, has not solved the problem.
    ratios = pd.DataFrame([seconds / seconds.min() for seconds in problems])
    end = float(np.nanmax(ratios.to_numpy())) * 1.1
    series = []
    for layer in sorted(ratios.columns):
        solved = np.sort(ratios[layer].dropna().to_numpy())
        x = np.unique([1.0, *solved, end])
        y = np.searchsorted(solved, x, side="right") / len(ratios) * 100
        series.append(
            Series(name=layer, layer=layer, x=x.tolist(), y=y.tolist(), step=True, markers=False)
        )
    return Lines(
        name="profile",
        title=f"Performance profile over {len(ratios)} measurements of time",
        caption="Dolan & Moré (2002): the share of all measurements (training step, evaluation "
        "and decoding at each V, training to the target perplexity) in which a layer is within a "
        "factor of the fastest. At 1: how often it is the fastest. Higher is better.",
        x=Axis("within this factor of the fastest", log=True),
        y=Axis("share of measurements [%]"),
        panels=[Panel("", series)],
    )


def huffman_depth(results: Results) -> Chart | None:
    """Depth of the Huffman tree against frequency at the largest V timed, beside Shannon's bound.

    The tree is that of the timing's own frequencies, Zipf's law.
    """
    speed = results.speed
    if speed.empty or not (speed["layer"].map(family) == "hierarchical").any():
        return None
    size = int(speed.loc[speed["layer"].map(family) == "hierarchical", "vocab_size"].max())
    if size < 2:
        return None
    weights = 1.0 / np.arange(1, size + 1)
    share = weights / weights.sum()
    depths = huffman_tree(weights).depths
    mean = float(share @ depths)
    ranks = np.unique(np.geomspace(1, size, 60).astype(int))[::-1] - 1
    x = share[ranks].tolist()
    name = sorted(layer for layer in speed["layer"].unique() if family(layer) == "hierarchical")[0]
    series = [
        Series("Huffman tree", x, depths[ranks].astype(float).tolist(), layer=name),
        Series("-log2 p", x, (-np.log2(share[ranks])).tolist(), markers=False),
    ]
    return Lines(
        name="huffman-depth",
        title=f"Depth of the Huffman tree by frequency, {size_title(size)}",
        caption=f"Decisions on the way to a class, under the Zipf's law that targets are drawn "
        f"from in timing: {mean:.1f} on average, while a balanced tree has {np.log2(size):.1f} "
        f"and no binary tree has fewer than {float(-(share @ np.log2(share))):.1f} (the entropy).",
        x=Axis("probability of the class", log=True),
        y=Axis("decisions on the path"),
        panels=[Panel("", series, size)],
    )
