"""The cost model against steps whose cost is known, and its calibration."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from softmax_bench.advise.calibration import (
    Cell,
    calibrated,
    calibration_path,
    load,
    measure,
    this_setting,
)
from softmax_bench.advise.model import CostModel, relative_errors
from softmax_bench.advise.workload import Workload, of_layer, workload
from softmax_bench.layers import create_layer, layer_names
from softmax_bench.measure import LayerStep, zipf_counts

SETTING = this_setting(threads=1, device="cpu", dtype="float32", optimizer="adagrad")
GRID = list(itertools.product((100, 1000, 9000), (8, 64), (10, 300)))


def synthetic(layer: str, size: tuple[int, int, int], noise: float = 1.0) -> Cell:
    """A dense layer on a machine of which everything is known."""
    classes, width, tokens = size
    work = Workload(
        layer=layer, vocab_size=classes, hidden_size=width, num_tokens=tokens,
        flops=6.0 * classes * width * tokens, bytes=1.0, rows_touched=classes,
        parameter_bytes=4 * classes * width, table_bytes=0, gradient_bytes=4 * classes * width,
        row_sparse=False,
    )  # fmt: skip
    seconds = 1e-4 + 1e-7 * tokens + work.flops / 5e10 + work.gradient_bytes / 1e10
    peak = 1000 + 4 * tokens * width + work.gradient_bytes
    return Cell(workload=work, seconds=noise * seconds, low=0.0, high=0.0, peak_bytes=round(peak))


def test_a_machine_that_keeps_to_the_model_is_found_again() -> None:
    model = CostModel([synthetic("full", size) for size in GRID])
    assert model.median_error < 1e-6
    far = synthetic("full", (10**6, 512, 4096))
    foretold = model.predict(far.workload)
    assert foretold.seconds == pytest.approx(far.seconds)
    assert foretold.peak_bytes == pytest.approx(far.peak_bytes, rel=1e-6)
    assert foretold.outside == "operations = 1.26e+13, measured up to 1.04e+09"
    assert model.predict(synthetic("full", (5000, 32, 100)).workload).outside == ""


def test_errors_are_those_of_sizes_held_out() -> None:
    """One step that took ten times as long spoils its own prediction when it is held out."""
    odd = (1000, 8, 300)
    cells = [synthetic("full", size, 10.0 if size == odd else 1.0) for size in GRID]
    held_out = CostModel(cells).held_out.set_index(["vocab_size", "hidden_size", "num_tokens"])
    assert len(held_out) == len(GRID)
    assert relative_errors(held_out)[odd] == pytest.approx(0.9, abs=0.01)


def test_intervals_widen_with_noise_and_distance() -> None:
    rng = np.random.default_rng(0)
    noise = np.exp(0.2 * rng.standard_normal(len(GRID)))
    model = CostModel([synthetic("full", s, f) for s, f in zip(GRID, noise, strict=True)])
    near, far = (
        model.predict(synthetic("full", size).workload)
        for size in ((5000, 32, 100), (10**6, 8, 10))
    )
    assert 1.05 < near.high / near.seconds < 3
    assert near.low / near.seconds == pytest.approx(near.seconds / near.high)
    assert far.high / far.seconds > near.high / near.seconds
    assert far.outside.startswith("V = 1e+06, measured up to 9e+03")


def test_layers_known_at_too_few_sizes_are_not_predicted() -> None:
    cells = [synthetic("full", size) for size in GRID]
    model = CostModel([*cells, *(synthetic("nce", size) for size in GRID[:3])])
    assert model.layers == ["full"]
    assert CostModel([]).layers == []


@pytest.mark.parametrize("spec", layer_names())
def test_the_workload_is_that_of_the_layer(spec: str) -> None:
    counts = zipf_counts(50)[::-1].copy()
    layer = create_layer(spec, 6, 50, counts, sparse=True)
    assert workload(spec, 50, 6, 9, counts) == of_layer(spec, layer, 9)


@pytest.mark.parametrize("spec", ["full", "sampled", "hierarchical"])
def test_bytes_of_a_workload_are_those_of_the_step(spec: str) -> None:
    """Parameters and states to the byte, gradients as a mean over draws."""
    step = LayerStep(create_layer(spec, 16, 500, zipf_counts(500), sparse=True), 30)
    work, held = of_layer(spec, step.layer, 30), step.memory()
    assert work.parameter_bytes == held.parameters == held.optimizer
    assert work.gradient_bytes == pytest.approx(held.gradients, rel=0.25)  # of few tokens


def test_calibration_is_kept_and_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [(20 + 10 * n, 4, 5 + n) for n in range(4)]
    monkeypatch.setattr("softmax_bench.advise.calibration.SIZES", sizes)
    monkeypatch.setattr("softmax_bench.advise.calibration.SECONDS_A_CELL", 0.001)
    monkeypatch.setattr("softmax_bench.advise.calibration.is_calm", lambda: False)
    shares: list[float] = []
    first = calibrated(["full"], SETTING, tmp_path, on_share=shares.append)
    assert [cell.workload.size for cell in first.cells] == sizes
    assert shares == sorted(shares)
    assert (len(shares), shares[-1]) == (len(sizes), 1.0)
    assert all(cell.low <= cell.seconds <= cell.high for cell in first.cells)
    assert all(cell.seconds > 0 for cell in first.cells)
    assert load(tmp_path, SETTING) == first
    both = calibrated(["full", "nce"], SETTING, tmp_path)
    assert both.cells[:4] == first.cells
    assert both.layers == ["full", "nce"]
    assert calibrated(["nce"], SETTING, tmp_path) == both
    anew = calibrated(["nce"], SETTING, tmp_path, anew=True)
    assert anew.cells[:4] == first.cells
    assert anew != both
    assert CostModel(anew.cells).layers == ["full", "nce"]
    other = this_setting(threads=2, device="cpu", dtype="float32", optimizer="adagrad")
    assert load(tmp_path, other).cells == []


def test_a_damaged_calibration_says_so(tmp_path: Path) -> None:
    path = calibration_path(tmp_path, SETTING)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"is not a calibration.*delete it"):
        load(tmp_path, SETTING)


def test_what_takes_too_long_is_left_out() -> None:
    told: list[None] = []
    cells = measure(
        ["full", "nce(num_samples=2)"], SETTING, sizes=[(200, 4, 5)], seconds=0.001,
        max_flops=20_000, on_cell=lambda: told.append(None),
    )  # fmt: skip
    assert [cell.workload.layer for cell in cells] == ["nce(num_samples=2)"]
    assert len(told) == 2
    assert measure(["full"], SETTING, sizes=[(200, 4, 5)], seconds=0.001, max_seconds=0.0) == []
