"""The plots of a report, each a function from results to a figure, or None without data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from softmax_bench.report.plots import quality, speed
from softmax_bench.study.frames import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOTS: dict[str, tuple[Callable[[Results], Figure | None], str]] = {
    "step-time": (
        speed.step_time,
        "Forward, backward and optimiser of the output layer alone. Bars are 95 % intervals of "
        "the median; the exponent is the slope of the line: 1 grows like V, 0 not at all.",
    ),
    "excess-perplexity": (
        quality.excess_perplexity,
        "On the synthetic language the best possible perplexity is known exactly. What a model "
        "has above it is what it has not learned, and can be compared across vocabularies.",
    ),
    "perplexity": (
        quality.perplexity,
        "Exact and normalised over the whole vocabulary for every layer, whatever it was trained "
        "with. The n-gram model (interpolated Kneser-Ney) counts the whole training text, however "
        "little of it the layers were trained on.",
    ),
    "learning-curves": (
        quality.learning_curves,
        "Training time alone; evaluation is not counted. Every layer sees the same tokens, so a "
        "line that ends further left was faster. Dotted: what needs no training.",
    ),
    "price": (
        quality.price,
        "Lower is better, further left is cheaper; the dotted line is the front of those that no "
        "other layer beats in both. Bars, where there are several seeds, are 95 % intervals.",
    ),
    "frequency": (
        quality.frequency,
        "The same models, the test text split by how often the training text has each word: above "
        "the line of full softmax is where an approximation loses.",
    ),
    "phases": (
        speed.phases,
        "Drawing the noise, forward, backward, clipping and the optimiser's step.",
    ),
    "roofline": (
        speed.roofline,
        "Draw, forward and backward against what the machine can do at most: a large matrix "
        "product's rate, or a large copy's, both measured just before. A line goes from the "
        "smallest V to the largest.",
    ),
    "memory": (
        speed.memory,
        "Most bytes that tensors held at once during forward and backward, the gradients of the "
        "parameters included, the parameters not.",
    ),
}
"""Every plot with its caption, in the order of the report."""
