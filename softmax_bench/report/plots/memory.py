"""Memory of a training step."""

from __future__ import annotations

from softmax_bench.records.frames import Results
from softmax_bench.report.plots.chart import Axis, Chart, Stack
from softmax_bench.report.plots.vocabulary import against_vocabulary, stacked
from softmax_bench.report.tables.selection import latest_speed
from softmax_bench.report.tables.summary import summary_table


def memory(results: Results) -> Chart | None:
    """Peak memory of forward and backward against V."""
    return against_vocabulary(
        summary_table(results),
        "memory_mb",
        name="memory",
        title="Memory of a step: activations, scratch and gradients",
        caption="The most bytes that tensors held at once during forward and backward, including "
        "the gradients of the parameters but not the parameters.",
        y=Axis("peak memory beyond parameters [MB]", log=True),
    )


def memory_parts(results: Results) -> Chart | None:
    """The parts of the memory needed to train a layer, one panel per vocabulary size."""
    speed = latest_speed(results)
    parts = ["parameters", "optimizer", "gradients", "activations"]
    if not {f"memory_{part}" for part in parts} <= set(speed.columns):
        return None
    steps = speed[speed["phase"] == "step"]
    columns = {part: steps[f"memory_{part}"].astype(float) / 1e6 for part in parts}
    panels = stacked(steps[["vocab_size", "layer"]].assign(**columns), parts)
    if not panels:
        return None
    return Stack(
        name="memory-parts",
        title="Memory for training a layer, by use",
        caption="Parameters and the optimiser's state are permanent; gradients and activations "
        "are those of one step.",
        unit="MB",
        parts=["parameters", "optimiser", "gradients", "activations and scratch"],
        panels=panels,
    )
