from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, entropy

from softmax_bench.corpora import SyntheticLanguage, load_corpus
from softmax_bench.errors import SoftmaxBenchError


def entropy_rate(language: SyntheticLanguage) -> float:
    """Entropy in nats of a word given all before it: of its class, and of the word in its class."""
    transition = language.transition_given_pair
    pairs = language._pair_probabilities
    of_class = -np.einsum("ab,abc,abc->", pairs, transition, np.log(transition))
    words, classes = language.word_probabilities, language.class_probabilities
    return float(of_class + entropy(words) - entropy(classes))


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
    assert abs(nats.mean() - entropy_rate(language)) < 4.5 * means.std() / math.sqrt(200)


def test_drawn_words_follow_zipf() -> None:
    language = SyntheticLanguage(40, seed=2)
    text = language.draw(400_000, np.random.default_rng(1))
    observed = np.bincount(text, minlength=40)
    # Words are not independent: every tenth is nearly so.
    thinned = np.bincount(text[::10], minlength=40)
    expected = language.word_probabilities * thinned.sum()
    assert chisquare(thinned, expected).pvalue > 1e-4
    np.testing.assert_allclose(observed / observed.sum(), language.word_probabilities, rtol=0.1)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_drawn_triples_are_as_frequent_as_log_prob_says(size: int) -> None:
    language = SyntheticLanguage(size, seed=3)
    # Triples far apart are nearly independent of each other.
    triples = language.draw(400_000, np.random.default_rng(4)).reshape(-1, 10)[:, :3]
    texts = np.array(list(itertools.product(range(size), repeat=3)))
    p = np.array([np.exp(language.log_prob(text).sum()) for text in texts])
    observed = np.bincount(triples @ [size**2, size, 1], minlength=size**3)
    assert chisquare(observed, p * len(triples)).pvalue > 1e-4


@pytest.mark.parametrize("size", [10_000, 100_000])
def test_context_is_worth_learning(size: int) -> None:
    for seed in range(3):
        language = SyntheticLanguage(size, seed)
        gain = entropy(language.word_probabilities) - entropy_rate(language)
        assert 3 < np.exp(gain) < 6


@pytest.mark.parametrize("size", [2, 100])
def test_splits_and_language_come_from_different_streams(size: int) -> None:
    """The language of two words once shared its stream with the test text."""
    corpus = load_corpus("synthetic", vocab_size=size, tokens=20_000)
    language = SyntheticLanguage(size)
    again = language.draw(20_000, np.random.default_rng([0, size])).astype(np.int32)
    texts = [again, corpus.train, corpus.valid, corpus.test]
    for one, other in itertools.combinations(texts, 2):
        assert not np.array_equal(one, other)


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
        load_corpus("synthetic", vocab_size=size)


def test_seeds_and_lengths_that_it_does_not_have() -> None:
    with pytest.raises(SoftmaxBenchError, match="seed must be 0 or more, not -1"):
        load_corpus("synthetic", seed=-1)
    with pytest.raises(SoftmaxBenchError, match="at least one token, not 0"):
        load_corpus("synthetic", tokens=0)
