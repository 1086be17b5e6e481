"""The plots of a report: functions that turn results into a chart, or None without data."""

from __future__ import annotations

from collections.abc import Callable

from softmax_bench.records.frames import Results
from softmax_bench.report.plots import fidelity, huffman, memory, quality, roofline, speed, training
from softmax_bench.report.plots.chart import Chart, chart_frame, layers_of
from softmax_bench.report.plots.draw import draw

CHARTS: list[Callable[[Results], Chart | None]] = [
    training.price,
    speed.step_time,
    quality.over_full,
    quality.bits_per_byte,
    training.bits_per_byte_for_time,
    quality.excess_perplexity,
    quality.adjusted_perplexity,
    quality.perplexity,
    training.learning_curves,
    quality.frequency,
    training.learning_rates,
    speed.phases,
    memory.memory,
    memory.memory_parts,
    roofline.roofline,
    speed.profile,
    huffman.huffman_depth,
    *fidelity.AGAINST_SAMPLES,
    fidelity.divergence,
]
"""The charts in the order of the report."""

__all__ = ["CHARTS", "Chart", "chart_frame", "charts", "draw", "layers_of"]


def charts(results: Results) -> list[Chart]:
    """The charts that the results have data for."""
    made = [make(results) for make in CHARTS]
    return [chart for chart in made if chart is not None]
