"""Moments of random gradients whose distribution is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from msgspec.structs import astuple
from scipy.stats import binomtest
from torch import Tensor

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.measure.moments import MomentAccumulator, block_mean

SIZE = (12, 3)


def fill(exact: Tensor, shift: Tensor, noise: float, draws: int) -> MomentAccumulator:
    accumulator = MomentAccumulator(exact)
    for _ in range(draws):
        accumulator.add(exact + shift + noise * torch.randn(SIZE, dtype=torch.float64))
    return accumulator


@pytest.mark.parametrize(("bias", "noise"), [(0.5, 0.2), (0.05, 0.3), (0.0, 0.3), (0.2, 0.0)])
def test_moments_of_a_known_distribution_lie_in_their_intervals(bias: float, noise: float) -> None:
    exact = torch.randn(SIZE, dtype=torch.float64)
    exact /= exact.norm()
    shift = torch.randn(SIZE, dtype=torch.float64)
    shift *= bias / shift.norm()
    truth = {
        "bias": bias,
        "variance": exact.numel() * noise**2,
        "direction": float((exact * (exact + shift)).sum() / (exact + shift).norm()),
    }
    covered = dict.fromkeys(truth, 0)
    repeats = 60
    for _ in range(repeats):
        found = fill(exact, shift, noise, 32).result()
        for name, value in truth.items():
            estimate = getattr(found, name)
            assert estimate.low <= estimate.value <= estimate.high
            covered[name] += estimate.low - 1e-7 <= value <= estimate.high + 1e-7
    for name, hits in covered.items():
        # 95 % intervals: what is seen must not speak against 90 %.
        test = binomtest(hits, repeats, 0.90, alternative="less")
        assert test.pvalue > 0.01, (name, hits)


def test_noise_is_no_bias() -> None:
    """The mean of 32 draws is off by 0.3; without taking that off it would be called bias."""
    exact = torch.ones(SIZE, dtype=torch.float64) / SIZE[0]
    found = [fill(exact, torch.zeros(SIZE), 0.3, 32).result().bias for _ in range(20)]
    assert sum(bias.value == 0 for bias in found) >= 5
    assert sum(bias.low == 0 for bias in found) >= 18


def test_a_bias_of_length_alone_keeps_the_direction() -> None:
    exact = torch.randn(SIZE, dtype=torch.float64)
    found = fill(exact, -0.9 * exact, 0.0, 16).result()
    assert found.bias.value == pytest.approx(0.9)
    assert found.direction.value == pytest.approx(1.0)
    assert found.cosine.value == pytest.approx(1.0)
    assert found.variance.value == pytest.approx(0.0, abs=1e-12)


def test_row_sparse_draws_are_as_dense_ones() -> None:
    exact = torch.randn(SIZE, dtype=torch.float64)
    dense, sparse = MomentAccumulator(exact), MomentAccumulator(exact)
    for _ in range(20):
        rows = torch.randint(SIZE[0], (5,))  # with repeats
        values = torch.randn(5, SIZE[1], dtype=torch.float64)
        gradient = torch.sparse_coo_tensor(rows.unsqueeze(0), values, SIZE, check_invariants=True)
        dense.add(gradient.to_dense())
        sparse.add(gradient)
    pairs = zip(astuple(dense.result()), astuple(sparse.result()), strict=True)
    for one, other in pairs:
        assert one.value == pytest.approx(other.value)
        assert one.high == pytest.approx(other.high)


def test_what_cannot_be_judged() -> None:
    with pytest.raises(SoftmaxBenchError, match="exact gradient is zero"):
        MomentAccumulator(torch.zeros(3))
    with pytest.raises(SoftmaxBenchError, match="at least 16 draws of the gradient, not 15"):
        fill(torch.ones(SIZE), torch.zeros(SIZE), 0.1, 15).result()


def test_the_mean_of_a_text_whose_words_resemble_their_neighbours() -> None:
    """An interval that took the words for independent would be a third as wide as it must be."""
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        walk = rng.standard_normal(2000)
        for place in range(1, len(walk)):
            walk[place] += 0.8 * walk[place - 1]
        mean = block_mean(torch.from_numpy(walk))
        covered += mean.low <= 0 <= mean.high
    assert covered >= 88
    assert block_mean(torch.tensor([2.0])).high == 2.0
