"""The measuring is measured: fakes whose answer is known."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from softmax_bench.layers import create_layer
from softmax_bench.measure import (
    PHASES,
    LayerStep,
    describe_environment,
    interleave,
    peak_bytes,
    summarise,
    zipf_counts,
    zipf_targets,
)
from softmax_bench.measure.environment import _nvidia

CPU = torch.device("cpu")


def test_two_equal_candidates_on_a_machine_that_slows_down() -> None:
    """One after the other, B would seem 60 % slower; taking turns, they come out equal."""
    now = 0

    def step() -> dict[str, float]:
        nonlocal now
        now += 1
        return {"step": 1.0 + now / 100}

    result = interleave(
        {"A": step, "B": step}, budget_seconds=1e9, min_repetitions=60, max_repetitions=60
    )
    a, b = result["A"]["step"], result["B"]["step"]
    assert a.median == pytest.approx(b.median, rel=0.03)
    assert a.low < b.median < a.high


def test_repetitions_end_when_the_interval_is_narrow() -> None:
    steady = interleave({"A": lambda: {"step": 1.0}}, budget_seconds=1e9)
    assert steady["A"]["step"].repetitions == 5
    rng = random.Random(0)
    noisy = interleave({"A": lambda: {"step": rng.random()}}, budget_seconds=1e9)
    assert noisy["A"]["step"].repetitions == 200


def test_the_least_repetitions_are_kept_when_the_budget_is_spent() -> None:
    rng = random.Random(0)
    result = interleave({"A": lambda: {"step": rng.random()}}, budget_seconds=1e-9)
    assert result["A"]["step"].repetitions == 5


def test_the_first_run_does_not_count() -> None:
    runs: list[float] = [100.0]

    def step() -> dict[str, float]:
        return {"step": runs.pop() if runs else 1.0, "other": 2.0}

    result = interleave({"A": step}, budget_seconds=1.0)
    assert result["A"]["step"].high == 1.0
    assert result["A"]["other"].median == 2.0


def test_intervals_cover_the_true_median() -> None:
    rng = np.random.default_rng(0)
    truth = 1.0  # median of the log-normal distribution
    covered = 0
    for _ in range(300):
        interval = summarise(rng.lognormal(size=30).tolist(), resamples=300)
        covered += interval.low <= truth <= interval.high
    assert 0.90 <= covered / 300 <= 0.99


def test_peak_memory_is_exact() -> None:
    def two_at_once() -> None:
        first = torch.empty(1000, dtype=torch.float64)
        second = torch.empty(500, dtype=torch.float64)
        del first, second
        torch.empty(100, dtype=torch.float64)

    def one_after_the_other() -> None:
        for _ in range(5):
            torch.empty(1000, dtype=torch.float64)

    before = torch.empty(10**6)
    assert peak_bytes(two_at_once, CPU) == 1500 * 8
    assert peak_bytes(one_after_the_other, CPU) == 1000 * 8
    # In place, but for the number 1 as a tensor.
    assert peak_bytes(lambda: before.add_(1), CPU) < 100


def test_peak_memory_sees_the_backward() -> None:
    weight = torch.ones(1000, requires_grad=True)
    # Saved square, its gradient, and the gradient of the weight, at the least.
    assert peak_bytes(lambda: weight.exp().square().sum().backward(), CPU) >= 3 * 4000


def test_full_softmax_does_not_hold_all_scores() -> None:
    layer = create_layer("full", 4, 50_000)
    all_scores = 4096 * 50_000 * 4
    assert LayerStep(layer, 4096).memory().peak < all_scores / 2


@pytest.mark.parametrize("spec", ["full", "hierarchical", "nce", "sampled"])
def test_a_step_has_all_phases_and_learns(spec: str) -> None:
    step = LayerStep(create_layer(spec, 8, 50, zipf_counts(50)), 20, learning_rate=0.5)
    hidden = step.hidden.detach()
    before = float(step.layer.target_log_prob(hidden, step.target).detach().mean())
    for _ in range(30):
        phases = step()
    assert set(phases) == {*PHASES, "encoder"}
    assert sum(phases[p] for p in PHASES[:-1]) == pytest.approx(phases["step"], rel=1e-6)
    assert float(step.layer.target_log_prob(hidden, step.target).detach().mean()) > before


def test_targets_follow_zipf() -> None:
    targets = zipf_targets(100_000, 50, seed=0)
    zipf = 1 / np.arange(1, 51)
    expected = zipf / zipf.sum() * 100_000
    assert chisquare(np.bincount(targets.numpy(), minlength=50), expected).pvalue > 1e-3
    assert zipf_targets(5, 1, seed=0).tolist() == [0] * 5
    assert (np.diff(zipf_counts(1000)) <= 0).all()
    assert zipf_counts(1000).min() >= 1


def test_environment_names_no_one() -> None:
    from softmax_bench.study.trials.setting import describe_machine

    environment = describe_machine()
    assert environment.versions["torch"] == torch.__version__
    assert environment.cores >= 1
    assert set(describe_environment()) == set(environment.__struct_fields__)


def test_the_driver_says_its_version(tmp_path: Path) -> None:
    file = tmp_path / "version"
    assert _nvidia(file) == ""
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5\n")
    assert _nvidia(file) == "driver 550.54.15, "
