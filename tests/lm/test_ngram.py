from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmax_bench.corpora import load_corpus
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.lm.ngram import KneserNey

V = 6
texts = st.lists(st.integers(0, V - 1), min_size=1, max_size=60)


class Dictionaries:
    """The same model by the book: one dictionary an order, one recursion a probability."""

    def __init__(self, text: list[int], order: int) -> None:
        self.order = order
        padded = [0] * (order - 1) + text
        ends = range(order - 1, len(padded))
        self.counts: dict[int, Counter[tuple[int, ...]]] = {
            order: Counter(tuple(padded[i - order + 1 : i + 1]) for i in ends)
        }
        for k in range(order - 1, 0, -1):
            longer = {tuple(padded[i - k : i + 1]) for i in ends}
            self.counts[k] = Counter(gram[1:] for gram in longer)

    def discount(self, k: int, count: int) -> float:
        n = Counter(self.counts[k].values())
        if count == 0:
            return 0.0
        r = min(count, 3)
        if not (n[1] and n[2]):
            return 0.5 * r
        y = n[1] / (n[1] + 2 * n[2])
        return min(max(r - (r + 1) * y * n[r + 1] / n[r], 0.0), r) if n[r] else 0.5 * r

    def probability(self, context: tuple[int, ...], word: int, k: int) -> float:
        if k == 0:
            return 1 / V
        history = context[len(context) - k + 1 :]
        behind = {g[-1]: c for g, c in self.counts[k].items() if g[:-1] == history}
        lower = self.probability(context, word, k - 1)
        total = sum(behind.values())
        if not total:
            return lower
        count = behind.get(word, 0)
        kept = count - self.discount(k, count)
        left = sum(self.discount(k, c) for c in behind.values())
        return (kept + left * lower) / total


@given(texts, texts, st.integers(1, 5))
def test_it_is_the_model_of_the_book(train: list[int], test: list[int], order: int) -> None:
    fast = KneserNey(train, vocab_size=V, eos_id=0, order=order)
    slow = Dictionaries(train, order)
    padded = [0] * (order - 1) + test
    wanted = [
        math.log(slow.probability(tuple(padded[i : i + order - 1]), word, order))
        for i, word in enumerate(test)
    ]
    np.testing.assert_allclose(fast.log_prob(test), wanted, rtol=1e-12, atol=1e-12)


@given(texts, texts, st.integers(1, 5))
def test_probabilities_sum_to_one_after_any_context(
    train: list[int], context: list[int], order: int
) -> None:
    model = KneserNey(train, vocab_size=V, eos_id=0, order=order)
    last = [model.log_prob([*context, word])[-1] for word in range(V)]
    assert np.exp(last).sum() == pytest.approx(1, abs=1e-12)


def test_it_learns_what_follows_what() -> None:
    text = np.arange(600) % V
    model = KneserNey(text, vocab_size=V, eos_id=V - 1)
    assert np.exp(-model.log_prob(text).mean()) < 1.05
    assert np.exp(-model.log_prob(text[::-1]).mean()) > V  # worse than knowing nothing


def test_on_penn_treebank_it_is_as_good_as_others_say(corpora_folder: Path) -> None:
    """The literature has 141.2 for a 5-gram model with Kneser-Ney smoothing."""
    corpus = load_corpus(str(corpora_folder / "ptb"), vocab_size=10_000, seed=0)
    model = KneserNey(corpus.train, vocab_size=corpus.vocab_size, eos_id=corpus.eos_id)
    assert np.exp(-model.log_prob(corpus.test).mean()) == pytest.approx(141.2, rel=0.01)


def test_an_empty_text_to_predict() -> None:
    assert KneserNey([1], vocab_size=V, eos_id=0).log_prob([]).shape == (0,)


@pytest.mark.parametrize(("text", "order"), [([], 5), ([1], 0)])
def test_what_cannot_be(text: list[int], order: int) -> None:
    with pytest.raises(SoftmaxBenchError, match="needs n of at least 1"):
        KneserNey(text, vocab_size=V, eos_id=0, order=order)
