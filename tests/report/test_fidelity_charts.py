from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from softmax_bench.records.frames import frames
from softmax_bench.records.store import write_record
from softmax_bench.report import write_report
from softmax_bench.report.plots import charts
from softmax_bench.report.plots.chart import Dots, Lines
from softmax_bench.report.tables.fidelity import fidelity_table
from softmax_bench.report.tables.summary import summary_table
from tests.records import fidelity_record, speed_record, train_record


def test_charts_show_what_was_measured() -> None:
    records = [fidelity_record(name, 1000, kl) for name, kl in (("full", 0.1), ("sampled", 0.2))]
    made = {chart.name: chart for chart in charts(frames(records))}
    assert set(made) == {
        "gradient-bias", "gradient-variance", "gradient-cosine", "effective-samples", "divergence",
    }  # fmt: skip
    bias, apart = made["gradient-bias"], made["divergence"]
    assert isinstance(bias, Lines)
    assert isinstance(apart, Dots)
    assert len(bias.panels) == 2
    (line,) = bias.panels[0].series
    assert (line.layer, line.x, line.y) == ("sampled", [4.0, 64.0], [1 / 4, 1 / 64])
    assert line.low == pytest.approx([0.9 / 4, 0.9 / 64])
    assert [row.layer for row in apart.panels[0].rows] == ["full", "sampled"]


def test_a_store_of_fidelity_alone_has_a_page(tmp_path: Path) -> None:
    for name, kl in (("full", 0.1), ("sampled", 0.05)):
        write_record(tmp_path, fidelity_record(name, 1000, kl))
    page = write_report(tmp_path).read_text()
    assert "sampled ends closest to the full model, 0.05 nats apart" in page
    assert (tmp_path / "report" / "gradient-bias.png").exists()
    assert "learned_log_z_sd" in (tmp_path / "report" / "fidelity.csv").read_text()


def test_layers_of_unlike_models_are_not_set_side_by_side() -> None:
    other = msgspec.structs.replace(train_record("full", 1000, 9.0).trial, seed=7)
    old = fidelity_record("nce", 1000, 0.3, model=other)
    new = msgspec.structs.replace(
        fidelity_record("sampled", 1000, 0.2), started="2026-02-01T00:00:00+00:00"
    )
    assert fidelity_table(frames([old, new]))["layer"].tolist() == ["sampled"]


def test_the_table_of_a_run_has_it_beside_speed_and_perplexity() -> None:
    results = frames(
        [speed_record("sampled", 1000, 0.1), train_record("sampled", 1000, 90.0),
         fidelity_record("sampled", 1000, 0.2)]
    )  # fmt: skip
    (row,) = summary_table(results).to_dict("records")
    assert row["divergence"] == 0.2
    assert row["gradient_bias"] == 1 / 64
    assert row["gradient_samples"] == 64
    assert row["step_ms"] == pytest.approx(100)
