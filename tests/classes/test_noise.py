from __future__ import annotations

import copy
import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from softmax_bench.classes.noise import (
    LogUniformNoise,
    Noise,
    alias_table,
    expected_distinct,
    make_noise,
)
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.sampled.drawing import SharedSampler

CPU = torch.device("cpu")
MILLION = 10**6


def zipf_counts_shuffled(size: int) -> np.ndarray:
    return np.random.default_rng(0).permutation((1e7 / np.arange(1, size + 1)).astype(np.int64))


NOISES = {"uniform": 1.0, "log_uniform": 1.0, "unigram": 1.0, "unigram^0.75": 0.75}


@lru_cache
def noise_of(name: str, size: int) -> Noise:
    return make_noise(name.partition("^")[0], size, zipf_counts_shuffled(size), NOISES[name])


def head_and_tail(expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes in falling order of what is expected, and where their bins begin.

    The ten likeliest one by one, then bins of equal mass, down to the last thousandth of the mass,
    where float32 would be wrong by tens of per cent.
    """
    order = np.argsort(-expected, kind="stable")
    mass = np.cumsum(expected[order]) / expected.sum()
    edges = np.searchsorted(mass, [*np.linspace(0.05, 0.99, 60), 0.999])
    return order, np.unique(np.concatenate([np.arange(10), edges[edges > 10]]))


@pytest.mark.parametrize("name", list(NOISES))
@pytest.mark.parametrize("size", [1, 2, 7, 1000, MILLION])
def test_probabilities_sum_to_one(name: str, size: int) -> None:
    log_q = noise_of(name, size).log_prob(torch.arange(size))
    assert log_q.dtype == torch.float64
    assert math.isclose(float(log_q.exp().sum()), 1, rel_tol=1e-9)


@pytest.mark.parametrize("name", list(NOISES))
def test_drawn_frequencies_match_the_claim_at_a_million_classes(name: str) -> None:
    noise = noise_of(name, MILLION)
    q = noise.log_prob(torch.arange(MILLION)).exp().numpy()
    drawn = noise.sample(4_000_000, CPU).bincount(minlength=MILLION).numpy()
    order, bins = head_and_tail(q)
    observed = np.add.reduceat(drawn[order], bins)
    expected = np.add.reduceat(q[order], bins) * drawn.sum()
    assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=80).filter(lambda w: sum(w) > 0))
def test_alias_table_is_the_distribution(weights: list[float]) -> None:
    p = np.array(weights) / sum(weights)
    threshold, alias = alias_table(p)
    table = threshold / len(p)
    np.add.at(table, alias, (1 - threshold) / len(p))
    np.testing.assert_allclose(table, p, rtol=1e-6, atol=1e-12)


def test_classes_never_seen_can_be_drawn() -> None:
    noise = make_noise("unigram", 4, [0, 0, 0, 7])
    assert noise.log_prob(torch.arange(4)).exp().tolist() == pytest.approx([0.1, 0.1, 0.1, 0.7])


def test_relative_frequencies_do_as_counts_do() -> None:
    noise = make_noise("unigram", 3, [0.2, 0.0, 0.6])
    assert noise.log_prob(torch.arange(3)).exp().tolist() == pytest.approx([0.2, 0.2, 0.6])


def test_log_uniform_ranks_unsorted_ids() -> None:
    noise = LogUniformNoise(3, [5, 100, 20])
    q = noise.log_prob(torch.arange(3))
    assert q.argsort(descending=True).tolist() == [1, 2, 0]
    assert noise.sample(5000, CPU).bincount().argsort(descending=True).tolist() == [1, 2, 0]


@pytest.mark.parametrize("name", list(NOISES))
def test_probabilities_need_no_tables(name: str) -> None:
    noise = noise_of(name, 3000)
    probabilities = copy.deepcopy(noise).to("meta").probabilities()
    np.testing.assert_allclose(probabilities, noise.log_prob(torch.arange(3000)).exp())


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6), st.integers(0, 9), st.integers(0, 9))
def test_expected_distinct_is_the_sum_of_chances(q: list[float], m: int, n: int) -> None:
    chances = np.array(q)
    other = chances[::-1]
    plain = sum(1 - (1 - a) ** m * (1 - b) ** n for a, b in zip(chances, other, strict=True))
    assert expected_distinct((chances, m), (other, n)) == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("name", list(NOISES))
def test_expected_rows_of_a_sample_and_of_targets(name: str, replacement: bool) -> None:
    sampler = SharedSampler(noise_of(name, 3000), 400, replacement=replacement)
    shares = np.arange(1.0, 3001.0) / np.arange(1.0, 3001.0).sum()
    rows = sampler.expected_rows(shares, 100)
    touched = []
    for _ in range(60):
        drawn = sampler.draw(CPU).rows
        target = torch.multinomial(torch.from_numpy(shares), 100, replacement=True)
        touched.append(torch.cat([drawn, target]).unique().shape[0])
    assert np.mean(touched) == pytest.approx(rows, rel=0.02)


@pytest.mark.parametrize("name", ["uniform", "log_uniform", "unigram"])
@pytest.mark.parametrize("replacement", [True, False])
def test_expected_counts_of_a_shared_sample(name: str, replacement: bool) -> None:
    """Counts averaged over many samples against the claim, in the head and over the tail."""
    size, rounds = 3000, 1500
    sampler = SharedSampler(noise_of(name, size), 400, replacement=replacement)
    expected = sampler.log_expected_count(torch.arange(size)).exp()
    total = torch.zeros(size, dtype=torch.float64)
    for _ in range(rounds):
        sample = sampler.draw(CPU)
        assert sample.rows.diff().min() > 0
        torch.testing.assert_close(sample.log_expected.exp(), expected[sample.rows])
        total.index_add_(0, sample.rows, sample.count)
    mean = total / rounds
    variance = expected * (1 - expected / (400 if replacement else 1))
    z = (mean - expected) / (variance / rounds).sqrt()
    frequent = variance * rounds > 10  # where the count is near enough to normal
    assert frequent.sum() > 1000
    assert z[frequent].abs().max() < 4.8
    assert float(expected.sum()) == pytest.approx(400, rel=0.01)
    assert float(mean.sum()) == pytest.approx(400, rel=0.01)


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("name", list(NOISES))
def test_expected_counts_at_a_million_classes(name: str, replacement: bool) -> None:
    rounds = 6
    sampler = SharedSampler(noise_of(name, MILLION), 100_000, replacement=replacement)
    expected = sampler.log_expected_count(torch.arange(MILLION)).exp().numpy()
    seen = np.zeros(MILLION)
    for _ in range(rounds):
        sample = sampler.draw(CPU)
        seen[sample.rows.numpy()] += sample.count.numpy()
    order, bins = head_and_tail(expected)
    observed = np.add.reduceat(seen[order], bins)
    wanted = rounds * np.add.reduceat(expected[order], bins)
    # Counts of different classes stand in each other's way: their sum scatters less than this.
    chance = expected / 100_000 if replacement else expected
    variance = rounds * np.add.reduceat((expected * (1 - chance))[order], bins)
    error = np.sqrt(variance) + 1e-9 * wanted  # some classes are in every sample
    assert np.abs((observed - wanted) / error).max() < 4.5


def test_a_sample_as_large_as_the_classes_is_all_of_them() -> None:
    sampler = SharedSampler(make_noise("log_uniform", 10, None), 1024, replacement=False)
    sample = sampler.draw(CPU)
    assert sampler.takes_all
    assert sample.rows.tolist() == list(range(10))
    assert sample.log_expected.tolist() == [0.0] * 10


def test_unknown_noise() -> None:
    with pytest.raises(SoftmaxBenchError, match="'unigram', 'log_uniform' or 'uniform'"):
        make_noise("zipf", 5, None)


@pytest.mark.parametrize("name", ["uniform", "log_uniform"])
def test_a_power_that_would_change_nothing_is_refused(name: str) -> None:
    with pytest.raises(SoftmaxBenchError, match=r"power=0\.75 needs noise='unigram'"):
        make_noise(name, 5, [1, 2, 3, 4, 5], 0.75)
