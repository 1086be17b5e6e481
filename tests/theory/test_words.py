"""What docs/theory.md says of small texts, unseen words and word vectors, executed."""

from __future__ import annotations

import inspect
from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor, nn
from torch.nn import functional as F

from softmax_bench.corpora import SyntheticLanguage
from softmax_bench.layers import create_layer, layer_names, parse_spec
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.lm import make_optimizer
from tests.theory.fitting import fit


def pair_counts(words: Tensor, num_classes: int) -> Tensor:
    """How often each word follows each."""
    counts = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    return counts.index_put_((words[:-1], words[1:]), counts.new_ones(()), accumulate=True)


@pytest.mark.parametrize(("tokens", "best"), [(2000, 2), (30_000, 8)])
def test_the_number_of_dimensions_that_is_best_grows_with_the_text(tokens: int, best: int) -> None:
    """Of bigram models; more always fit the training text better."""
    language = SyntheticLanguage(50)
    words = torch.from_numpy(language.draw(60_000, np.random.default_rng(0)))
    train, test = (pair_counts(part, 50) for part in (words[:tokens], words[-20_000:]))
    fitted, unseen = {}, {}
    for dimensions in (2, 8, 16):
        layer, hidden, fitted[dimensions] = fit(train / train.sum(), dimensions, 100)
        log_prob = layer.log_prob(hidden).detach()
        unseen[dimensions] = -float((test / test.sum() * log_prob).sum())
    assert fitted[16] < fitted[8] < fitted[2]
    assert min(unseen, key=lambda dimensions: unseen[dimensions]) == best
    if tokens == 2000:
        assert (
            unseen[16] > entropy(language.word_probabilities) + 1
        )  # far worse than knowing nothing


V, SEEN, K = 60, 40, 8


@lru_cache
def text_of_seen_words() -> tuple[Tensor, Tensor]:
    """Hidden states and the words after them, none of the last twenty."""
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(10_000, K, generator=draw)
    scores = hidden @ torch.randn(K, SEEN, generator=draw) - torch.arange(1, SEEN + 1).log()
    return hidden, torch.multinomial(scores.softmax(1), 1, generator=draw).squeeze(1)


@pytest.mark.parametrize("name", layer_names())
def test_words_never_seen_keep_some_probability(name: str) -> None:
    """A share of their start's, which is that of words seen once."""
    hidden, target = text_of_seen_words()
    samples = inspect.signature(parse_spec(name)[0]).parameters.get("num_samples")
    spec = f"{name}(num_samples=30)" if samples and samples.default >= V else name
    layer = create_layer(spec, K, V, torch.bincount(target, minlength=V))

    @torch.no_grad()
    def unseen() -> Tensor:
        return layer.log_prob(hidden[:500])[:, SEEN:].exp()

    start = float(unseen().sum(1).mean())
    assert start == pytest.approx((V - SEEN) / (len(target) + V - SEEN), rel=0.4)
    optimizer = make_optimizer("adagrad", layer.parameters(), 0.1, initial_accumulator_value=1e-5)
    for inputs, words in zip(hidden.split(100), target.split(100), strict=True):
        optimizer.zero_grad()
        layer(inputs, words).backward()
        optimizer.step()
    assert unseen().min() > 0
    left = float(unseen().sum(1).mean()) / start
    if name in ("nce", "negative_sampling"):
        assert 0.8 < left < 1.0
    else:
        assert 0.1 < left < 0.7


WORDS, WIDTH, TOKENS = 200, 16, 40_000


@lru_cache
def text_of_classes() -> tuple[Tensor, Tensor]:
    """Words, and the class of each: words of one class have similar words around them."""
    language = SyntheticLanguage(WORDS)
    words = language.draw(TOKENS, np.random.default_rng(0))
    return torch.from_numpy(words), torch.from_numpy(language.class_of)


def nearest_of_own_class(vectors: Tensor) -> float:
    """Share of the words whose nearest neighbour by cosine is of their class, where one is."""
    _, classes = text_of_classes()
    directions = F.normalize(vectors - vectors.mean(0), dim=1)
    near = (directions @ directions.t()).fill_diagonal_(-2).argmax(1)
    has_others = torch.bincount(classes)[classes] > 1
    return float((classes[near] == classes)[has_others].double().mean())


def trained_rows(spec: str) -> Tensor:
    """Rows that two passes of a bigram model leave."""
    words, _ = text_of_classes()
    layer = create_layer(spec, WIDTH, WORDS, torch.bincount(words, minlength=WORDS))
    assert isinstance(layer, LinearOutputLayer)
    vectors = nn.Embedding(WORDS, WIDTH)
    parameters = [*layer.parameters(), *vectors.parameters()]
    optimizer = make_optimizer("adam", parameters, 0.02)
    for _ in range(2):
        for before, after in zip(words[:-1].split(200), words[1:].split(200), strict=True):
            optimizer.zero_grad()
            layer(vectors(before), after).backward()
            optimizer.step()
    return layer.weight.detach()


def glove_vectors() -> Tensor:
    """Vectors by GloVe's objective on the counts of neighbours (Pennington et al. 2014, eq. 8)."""
    words, _ = text_of_classes()
    counts = pair_counts(words, WORDS)
    word, context = counts.nonzero(as_tuple=True)
    times = counts[word, context].float()
    trust = (times / 100).clamp(max=1) ** 0.75
    left, right = (nn.Parameter(0.1 * torch.randn(WORDS, WIDTH)) for _ in range(2))
    offset, offset_right = (nn.Parameter(torch.zeros(WORDS)) for _ in range(2))
    optimizer = torch.optim.Adagrad([left, right, offset, offset_right], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        scores = (left[word] * right[context]).sum(1) + offset[word] + offset_right[context]
        (trust * (scores - times.log()).square()).mean().backward()
        optimizer.step()
    return torch.cat([left, right], 1).detach()


@pytest.mark.parametrize(
    "spec", ["full", "sampled(num_samples=50)", "nce(num_samples=50)", "negative_sampling"]
)
def test_rows_are_word_vectors(spec: str) -> None:
    """Fifty classes: of random vectors, one in fifty has its nearest neighbour in its class."""
    assert nearest_of_own_class(torch.randn(WORDS, WIDTH)) < 0.1
    assert nearest_of_own_class(trained_rows(spec)) > 0.8


def test_gloves_objective_finds_the_same_classes() -> None:
    assert nearest_of_own_class(glove_vectors()) > 0.5


def test_rows_of_words_with_independent_features_make_analogies() -> None:
    """Words are pairs of features, each chosen by itself: b(a, y) = b(a, x) - b(c, x) + b(c, y)."""
    of_first, of_second = torch.randn(40, 5, 1).double(), torch.randn(40, 1, 4).double()
    probability = (of_first + of_second).flatten(1).softmax(1)
    layer, _, _ = fit(probability / 40, 7)
    rows = layer.weight.detach().view(5, 4, 7)
    both = rows - rows.mean(0) - rows.mean(1, keepdim=True) + rows.mean((0, 1))
    assert both.norm() < 0.01 * (rows - rows.mean((0, 1))).norm()
