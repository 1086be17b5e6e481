"""Time of a training step."""

from __future__ import annotations

import numpy as np
import pandas as pd

from softmax_bench.records.frames import Results
from softmax_bench.report.plots.chart import Axis, Chart, Lines, Panel, Stack, layer_line
from softmax_bench.report.plots.vocabulary import against_vocabulary, stacked
from softmax_bench.report.style import two_digits
from softmax_bench.report.tables.disturbed import disturbed_note
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
    sentences = [
        "The output layer alone, optimiser included. Bars are 95 % intervals of the median."
    ]
    if steps["vocab_size"].nunique() > 1:
        sentences.append(
            "The exponent, if shown, is the slope of the whole line: at 1 time is proportional to "
            "V, at 0 it does not depend on V."
        )
    if not floor.empty:
        sentences.append(
            "The floor is the time of full softmax's matrix products at the rate of a large "
            "product on this machine."
        )
    sentences += disturbed_note(steps)
    if rings:
        sentences.append("Rings mark where a layer becomes faster than full softmax.")
    threads = f"{first['threads']} thread{'s' if first['threads'] > 1 else ''}"
    return against_vocabulary(
        steps,
        "ms",
        name="step-time",
        title=f"Time of a training step: N = {first['num_tokens']:,} targets, "
        f"H = {first['hidden_size']}, {threads}, {first['optimizer']}",
        caption=" ".join(sentences),
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
                    f"{row.layer} is faster than full from about V = "
                    f"{two_digits(row.faster_from)} on",
                )
            )
    return rings


def phases(results: Results) -> Chart | None:
    """Time of a step by phase, one panel per vocabulary size."""
    table = summary_table(results)
    columns = [f"{phase}_ms" for phase in _STEP_PHASES]
    if not set(columns) <= set(table.columns):
        return None
    timed = table.dropna(subset=["step_ms"])
    scale = timed["step_ms"] / timed[columns].sum(axis=1)
    panels = stacked(timed.assign(**{name: timed[name] * scale for name in columns}), columns)
    if not panels:
        return None
    return Stack(
        name="phases",
        title="Where the time of a step goes",
        caption=" ".join(
            [
                "Drawing the noise, forward, backward, clipping the gradient and the optimiser: "
                "their medians, scaled so that they add up to the median of the whole step.",
                *disturbed_note(latest_speed(results)),
            ]
        ),
        unit="ms",
        parts=[*_STEP_PHASES[:-1], "optimiser"],
        panels=panels,
    )


def profile(results: Results) -> Chart | None:
    """Performance profiles (Dolan & Moré 2002): how often a layer is within a factor of the best.

    The problems are all measurements of the layers' time: a training step, evaluation and decoding
    at each V, and training to the target perplexity.
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
        return None  # shares of one or two are meaningless
    # A layer that was not measured or failed has not solved the problem.
    ratios = pd.DataFrame([seconds / seconds.min() for seconds in problems])
    end = float(np.nanmax(ratios.to_numpy())) * 1.1
    series = []
    for layer in sorted(ratios.columns):
        solved = np.sort(ratios[layer].dropna().to_numpy())
        x = np.unique([1.0, *solved, end])
        y = np.searchsorted(solved, x, side="right") / len(ratios) * 100
        series.append(layer_line(layer, x.tolist(), y.tolist(), step=True))
    return Lines(
        name="profile",
        title=f"Performance profile over {len(ratios)} measurements of time",
        caption="Dolan & Moré (2002): the share of all measurements (training step, evaluation "
        "and decoding at each V, training to the target perplexity) in which a layer is within a "
        "factor of the fastest. At 1, it is how often the layer is the fastest. Higher is better.",
        x=Axis("within this factor of the fastest", log=True),
        y=Axis("share of measurements [%]"),
        panels=[Panel("", series)],
    )
