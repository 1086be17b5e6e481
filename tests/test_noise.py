from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.sampling import SharedSampler
from softmax_bench.noise import LogUniformNoise, Noise, alias_table, make_noise

CPU = torch.device("cpu")
MILLION = 10**6


def zipf_counts_shuffled(size: int) -> np.ndarray:
    return np.random.default_rng(0).permutation((1e7 / np.arange(1, size + 1)).astype(np.int64))


def noises(size: int) -> dict[str, Noise]:
    counts = zipf_counts_shuffled(size)
    return {
        "uniform": make_noise("uniform", size, counts),
        "log_uniform": make_noise("log_uniform", size, counts),
        "unigram": make_noise("unigram", size, counts),
        "unigram^0.75": make_noise("unigram", size, counts, 0.75),
    }


@pytest.mark.parametrize("name", list(noises(2)))
@pytest.mark.parametrize("size", [1, 2, 7, 1000, MILLION])
def test_probabilities_sum_to_one(name: str, size: int) -> None:
    log_q = noises(size)[name].log_prob(torch.arange(size))
    assert log_q.dtype == torch.float64
    assert math.isclose(float(log_q.exp().sum()), 1, rel_tol=1e-9)


@pytest.mark.parametrize("name", list(noises(2)))
def test_drawn_frequencies_match_the_claim_at_a_million_classes(name: str) -> None:
    noise = noises(MILLION)[name]
    q = noise.log_prob(torch.arange(MILLION)).exp().numpy()
    drawn = noise.sample(4_000_000, CPU).bincount(minlength=MILLION).numpy()
    # Classes in falling order of q: the ten likeliest one by one, then bins of equal mass, down
    # to the last thousandth of the mass, where float32 would be wrong by tens of per cent.
    order = np.argsort(-q, kind="stable")
    mass = np.cumsum(q[order])
    edges = np.searchsorted(mass, [*np.linspace(0.05, 0.99, 60), 0.999])
    bins = np.unique(np.concatenate([np.arange(10), edges[edges > 10]]))
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


@pytest.mark.parametrize("name", ["uniform", "log_uniform", "unigram"])
@pytest.mark.parametrize("replacement", [True, False])
def test_expected_counts_of_a_shared_sample(name: str, replacement: bool) -> None:
    """Counts averaged over many samples against the claim, in the head and over the tail."""
    size, rounds = 3000, 3000
    sampler = SharedSampler(noises(size)[name], 400, replacement=replacement)
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


def test_a_sample_as_large_as_the_classes_is_all_of_them() -> None:
    sampler = SharedSampler(make_noise("log_uniform", 10, None), 1024, replacement=False)
    sample = sampler.draw(CPU)
    assert sampler.takes_all
    assert sample.rows.tolist() == list(range(10))
    assert sample.log_expected.tolist() == [0.0] * 10


def test_unknown_noise() -> None:
    with pytest.raises(SoftmaxBenchError, match="'unigram', 'log_uniform' or 'uniform'"):
        make_noise("zipf", 5, None)
