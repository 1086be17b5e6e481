"""Predictions of ``softmax-bench advise`` against measurements: ``python -m benchmarks.advise``.

Every layer is timed at the small sizes to which the cost model is fitted, and then at sizes that
the model never saw, some of them larger. The errors of the plain roofline are shown for comparison.
An interrupted run resumes; to measure again, delete its output.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from softmax_bench.advise import calibration
from softmax_bench.advise.calibration import Calibration, Cell, Setting, calibrated, measure
from softmax_bench.advise.model import CostModel, Prediction
from softmax_bench.files import write_file
from softmax_bench.layers import Cost, layer_names, split_specs
from softmax_bench.measure import Machine, measure_machine
from softmax_bench.report.style import looks

SIZES = tuple(
    (classes, width, tokens)
    for classes in (1500, 12_000, 100_000)
    for width in (96, 320)
    for tokens in (150, 900)
)
MAX_FLOPS = 1e11
MAX_SECONDS = 5.0


def check(cells: list[Cell], model: CostModel, machine: Machine) -> pd.DataFrame:
    """One row per measured step: ``measured``, ``predicted``, ``roofline`` seconds, and memory."""
    rows = []
    for cell in cells:
        work = cell.workload
        if work.layer not in model.layers:
            continue
        foretold: Prediction = model.predict(work)
        cost = Cost(
            flops=work.flops,
            bytes=work.bytes,
            parameters=0,
            rows_touched=work.rows_touched,
            gradient_bytes=work.gradient_bytes,
        )
        rows.append(
            {
                "layer": work.layer, "V": work.vocab_size, "H": work.hidden_size,
                "N": work.num_tokens, "measured": cell.seconds, "predicted": foretold.seconds,
                "low": foretold.low, "high": foretold.high,
                "roofline": machine.least_seconds(cost),
                "measured_peak": cell.peak_bytes, "predicted_peak": foretold.peak_bytes,
                "kept": 2 * work.parameter_bytes + work.table_bytes,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, model: CostModel) -> str:
    """The errors as Markdown: over all steps, and one row per layer."""
    error, roofline = (_error(table, name) for name in ("predicted", "roofline"))
    inside = ((table["low"] <= table["measured"]) & (table["measured"] <= table["high"])).mean()
    peak = table["predicted_peak"] + table["kept"]
    memory = (peak / (table["measured_peak"] + table["kept"]) - 1).abs()
    lines = [
        f"* {len(table)} steps of {table['layer'].nunique()} layers, at "
        f"{len(table.drop_duplicates(['V', 'H', 'N']))} sizes that the model never saw",
        f"* time: median error {error.median():.1%}, nine in ten below {error.quantile(0.9):.1%}",
        f"* the plain roofline: median error {roofline.median():.1%}",
        f"* held out in the calibration itself: median error {model.median_error:.1%}",
        f"* intervals hold {inside:.0%} of the steps; they are meant to hold 90%",
        f"* memory, parameters and optimiser included: median error {memory.median():.1%}, "
        f"nine in ten below {memory.quantile(0.9):.1%}",
        "",
        "| layer | steps | median error | greatest | roofline's median | memory's median |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for layer, rows in table.groupby("layer"):
        own = error[rows.index]
        lines.append(
            f"| `{layer}` | {len(rows)} | {own.median():.1%} | {own.max():.0%} | "
            f"{roofline[rows.index].median():.0%} | {memory[rows.index].median():.1%} |"
        )
    return "\n".join(lines) + "\n"


def _error(table: pd.DataFrame, name: str) -> pd.Series[float]:
    return (table[name] / table["measured"] - 1).abs()


def draw(table: pd.DataFrame, out: Path) -> None:
    """Predicted against measured seconds, and the roofline beside it, as ``check.png``."""
    figure = Figure(figsize=(11, 5.2), dpi=150, layout="constrained", facecolor="white")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    ends = np.array([table["measured"].min() / 2, table["measured"].max() * 2]) * 1e3
    for axes, name, title in zip(
        panels, ("predicted", "roofline"), ("the cost model", "the plain roofline"), strict=True
    ):
        axes.fill_between(ends, ends / 1.2, ends * 1.2, color="#dddddd", label="within 20 %")
        for layer, look in looks(table["layer"]).items():
            rows = table[table["layer"] == layer]
            axes.plot(
                1e3 * rows["measured"], 1e3 * rows[name], look.marker, color=look.colour,
                markersize=4, alpha=0.8, label=layer,
            )  # fmt: skip
        axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlim=ends, xlabel="measured step, ms")
        axes.set_title(f"{title}: median error {_error(table, name).median():.0%}", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("predicted step, ms")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    figure.savefig(out / "check.png")


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Steps at the sizes of :data:`SIZES` that were measured so far."""

    setting: Setting
    cells: list[Cell]


def run(
    specs: list[str], setting: Setting, out: Path, seconds: float
) -> tuple[Calibration, list[Cell]]:
    """Calibrate, and measure the steps to be predicted; reuse what ``out`` already holds."""
    stored = out / "check.json"
    with Progress(transient=True) as progress:
        task = progress.add_task("calibrating", total=1.0)
        known = calibrated(
            specs, setting, out / "calibration",
            on_share=lambda share: progress.update(task, completed=share),
        )  # fmt: skip
        measured = Measured(setting=setting, cells=[])
        if stored.exists():
            before = msgspec.json.decode(stored.read_bytes(), type=Measured)
            measured = before if before.setting == setting else measured
        task = progress.add_task("measuring", total=len(SIZES))
        for size in SIZES:
            if size not in {cell.workload.size for cell in measured.cells}:
                cells = measure(
                    specs, setting, sizes=[size], seconds=seconds, max_flops=MAX_FLOPS,
                    max_seconds=MAX_SECONDS,
                )  # fmt: skip
                measured.cells.extend(cells)
                write_file(stored, msgspec.json.format(msgspec.json.encode(measured), indent=1))
            progress.advance(task)
    return known, measured.cells


def main() -> None:
    """Measure, compare, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.advise", description=__doc__)
    parser.add_argument("--layers", default="all", help="separated by commas")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=0.5, help="for a layer at a size")
    parser.add_argument("--out", type=Path, default=Path("results/advise"))
    options = parser.parse_args()
    specs = layer_names() if options.layers == "all" else split_specs(options.layers)
    setting = calibration.this_setting(
        threads=options.threads, device="cpu", dtype="float32", optimizer="adagrad"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    known, cells = run(specs, setting, options.out, options.seconds)
    machine = measure_machine(torch.device("cpu"))
    model = CostModel(known.cells)
    table = check(cells, model, machine)
    text = summary(table, model)
    if known.disturbed:
        text += f"\nNot to be trusted: it was calibrated while {known.disturbed}.\n"
    (options.out / "table.md").write_text(text)
    table.to_csv(options.out / "check.csv", index=False, float_format="%.6g")
    draw(table, options.out)
    Console().print(text, markup=False, highlight=False)


if __name__ == "__main__":
    main()
