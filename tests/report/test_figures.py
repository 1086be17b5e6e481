"""Figures against stored images.

``pytest tests/report/test_figures.py --mpl-generate-path=tests/report/baseline`` makes the images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from softmax_bench.records.frames import Results, frames
from softmax_bench.records.record import Record
from softmax_bench.report.plots import charts, draw
from softmax_bench.report.style import looks
from tests.records import ngram_record, speed_record, train_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LAYERS = {"full": 1.0, "hierarchical": 0.08, "hierarchical_kary": 0.1, "nce(num_samples=25)": 0.2}


def _results(sizes: tuple[int, ...]) -> Results:
    records: list[Record] = []
    for size in sizes:
        records.append(ngram_record(size, 150.0))
        for number, (layer, share) in enumerate(_LAYERS.items()):
            seconds = size / 1e4 if layer == "full" else share * (1 + size / 1e6)
            records.append(speed_record(layer, size, seconds))
            records += [
                train_record(layer, size, 100 + 10 * number + seed + size**0.3, seed=seed)
                for seed in range(3)
            ]
    return frames(records)


@pytest.mark.mpl_image_compare(
    baseline_dir="baseline", style="default", tolerance=4, savefig_kwargs={"dpi": 50}
)
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("step-time", (1000, 10_000, 100_000)),
        ("perplexity", (1000,)),
        ("learning-curves", (1000, 10_000)),
        ("phases", (1000,)),
        ("profile", (1000, 10_000)),
    ],
    ids=["lines", "dots", "panels", "stack", "stairs"],
)
def test_figure(name: str, sizes: tuple[int, ...]) -> Figure:
    chart = next(chart for chart in charts(_results(sizes)) if chart.name == name)
    return draw(chart, looks(_LAYERS))
