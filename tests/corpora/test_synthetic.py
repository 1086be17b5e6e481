from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from softmax_bench.corpora import SyntheticLanguage, load_corpus
from softmax_bench.errors import SoftmaxBenchError


@given(st.integers(2, 12), st.integers(0, 50))
def test_next_words_sum_to_one_after_every_history(size: int, seed: int) -> None:
    language = SyntheticLanguage(size, seed)
    for length in (0, 1, 2, 3):
        for history in itertools.islice(itertools.product(range(size), repeat=length), 30):
            last = [language.log_prob(np.array([*history, word]))[-1] for word in range(size)]
            assert math.isclose(sum(np.exp(last)), 1, rel_tol=1e-9)


@given(st.integers(2, 9), st.integers(0, 50))
def test_the_marginal_of_every_position_is_zipf(size: int, seed: int) -> None:
    """By enumeration of all texts of three words."""
    language = SyntheticLanguage(size, seed)
    texts = np.array(list(itertools.product(range(size), repeat=3)))
    p = np.array([np.exp(language.log_prob(text).sum()) for text in texts])
    zipf = 1 / np.arange(1, size + 1)
    for position in range(3):
        marginal = np.bincount(texts[:, position], p, size)
        np.testing.assert_allclose(marginal, zipf / zipf.sum(), rtol=1e-9)


@pytest.mark.parametrize("size", [2, 50, 2000])
def test_entropy_rate_is_what_a_long_text_shows(size: int) -> None:
    language = SyntheticLanguage(size, seed=1)
    nats = -language.log_prob(language.draw(200_000, np.random.default_rng(0)))
    # Neighbouring words depend on each other: the error comes from means of long stretches.
    means = nats.reshape(200, -1).mean(axis=1)
    assert abs(nats.mean() - language.entropy_rate()) < 4.5 * means.std() / math.sqrt(200)


def test_drawn_words_follow_zipf_and_their_pairs_the_chain() -> None:
    language = SyntheticLanguage(40, seed=2)
    text = language.draw(400_000, np.random.default_rng(1))
    observed = np.bincount(text, minlength=40)
    # Words are not independent: every tenth is nearly so.
    thinned = np.bincount(text[::10], minlength=40)
    expected = language.word_probabilities * thinned.sum()
    assert chisquare(thinned, expected).pvalue > 1e-4
    np.testing.assert_allclose(observed / observed.sum(), language.word_probabilities, rtol=0.1)


def test_there_is_something_to_learn() -> None:
    language = SyntheticLanguage(10_000)
    assert language.entropy_rate() < language.unigram_entropy() - 1


def test_corpus_is_decided_by_its_seed() -> None:
    one, same, other = (
        load_corpus("synthetic", vocab_size=100, seed=seed, tokens=5000) for seed in (1, 1, 2)
    )
    assert one.sha256 == same.sha256 != other.sha256
    assert one.true_perplexity is not None
    assert len(one.train) == 5000
    assert one.unknown_tokens("test") == 0
    language = SyntheticLanguage(100, 1)
    assert one.true_perplexity["test"] == pytest.approx(
        np.exp(-language.log_prob(one.test.astype(np.int64)).mean())
    )


@pytest.mark.parametrize("size", [0, 1, 10**7 + 1])
def test_sizes_that_it_does_not_have(size: int) -> None:
    with pytest.raises(SoftmaxBenchError, match="from 2 to 10,000,000 words"):
        SyntheticLanguage(size)
