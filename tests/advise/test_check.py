"""The check of predictions against measurements, on steps whose cost is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.advise import check, draw, summary
from softmax_bench.advise.model import CostModel
from softmax_bench.measure import Machine
from tests.advise.test_model import GRID, synthetic

MACHINE = Machine(flops=5e10, products={}, bytes=1e10)


def test_errors_and_their_table(tmp_path: Path) -> None:
    model = CostModel([synthetic("full", size) for size in GRID])
    right, wrong = synthetic("full", (500, 16, 50)), synthetic("full", (600, 16, 50), noise=2.0)
    table = check([right, wrong, synthetic("nce", (9, 9, 9))], model, MACHINE)
    assert table["predicted"].tolist() == pytest.approx([right.seconds, wrong.seconds / 2])
    assert (table["roofline"] < table["measured"]).all()
    peaks = table["measured_peak"].tolist()
    assert table["predicted_peak"].tolist() == pytest.approx(peaks, rel=1e-3)
    text = summary(table, model)
    assert "2 steps of 1 layers, at 2 sizes" in text
    assert "time: median error 25.0%" in text
    assert "| `full` | 2 | 25.0% | 50% |" in text
    assert "intervals hold 50% of the steps" in text
    draw(table, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"check.png"}
