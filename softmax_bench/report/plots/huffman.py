"""The Huffman tree that hierarchical softmax was timed with."""

from __future__ import annotations

import numpy as np

from softmax_bench.classes.huffman import huffman_tree
from softmax_bench.records.frames import Results
from softmax_bench.report.plots.chart import Axis, Chart, Lines, Panel, Series
from softmax_bench.report.plots.vocabulary import size_title
from softmax_bench.report.style import family


def huffman_depth(results: Results) -> Chart | None:
    """Depth of the Huffman tree against frequency at the largest V, beside Shannon's bound.

    The tree is that of the frequencies used in timing, Zipf's law.
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
