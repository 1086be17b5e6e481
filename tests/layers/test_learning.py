"""Every layer learns: trained for a second, it comes near the entropy of a known language.

The encoder sees the log-probabilities of the next word's class, which is all that the past of the
synthetic language says of it. One matrix, and a row and a bias for each word, can give the true
distribution: what a layer's loss has above the entropy is its own doing.
"""

from __future__ import annotations

import inspect
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from softmax_bench.corpora import SyntheticLanguage
from softmax_bench.layers import create_layer, layer_names, parse_spec
from softmax_bench.lm import make_optimizer

V, STEPS, BATCH, HELD_OUT = 300, 300, 100, 3000
LEARNED = 0.5
"""Share of the nats between the unigram model and the entropy; full softmax learns 0.72 of them."""


@lru_cache
def language() -> tuple[Tensor, Tensor, Tensor, float, float]:
    """What the encoder sees, targets, counts, and the losses of the truth and the unigram model."""
    source = SyntheticLanguage(V)
    words = source.draw(STEPS * BATCH + HELD_OUT + 2, np.random.default_rng(0))
    classes = source.class_of[words]
    log_class = np.log(source.transition_given_pair[classes[:-2], classes[1:-1]])
    seen = torch.from_numpy(log_class - log_class.mean(1, keepdims=True)).float() / 4
    counts = torch.from_numpy(np.bincount(words[2:-HELD_OUT], minlength=V))
    held, p = words[-HELD_OUT:], source.word_probabilities
    of_class = log_class[-HELD_OUT:][np.arange(HELD_OUT), classes[-HELD_OUT:]]
    truth = of_class + np.log(p[held] / source.class_probabilities[classes[-HELD_OUT:]])
    return seen, torch.from_numpy(words[2:]), counts, -truth.mean(), -np.log(p[held]).mean()


def spec_of(name: str) -> str:
    """The layer by its defaults, but with fewer samples than there are classes."""
    samples = inspect.signature(parse_spec(name)[0]).parameters.get("num_samples")
    return f"{name}(num_samples=100)" if samples and samples.default >= V else name


@pytest.mark.parametrize("name", layer_names())
def test_a_layer_learns_a_language(name: str) -> None:
    torch.manual_seed(0)
    seen, target, counts, truth, unigram = language()
    layer = create_layer(spec_of(name), seen.shape[1], V, counts, sparse=True)
    encoder = nn.Linear(seen.shape[1], seen.shape[1])
    parameters = [*encoder.parameters(), *layer.parameters()]
    optimizer = make_optimizer("adagrad", parameters, 0.1, initial_accumulator_value=1e-5)
    batches = seen[:-HELD_OUT].split(BATCH), target[:-HELD_OUT].split(BATCH)
    for inputs, words in zip(*batches, strict=True):
        optimizer.zero_grad()
        layer(encoder(inputs), words).backward()
        optimizer.step()
    with torch.no_grad():
        log_p = layer.target_log_prob(encoder(seen[-HELD_OUT:]), target[-HELD_OUT:])
    learned = (unigram + float(log_p.mean())) / (unigram - truth)
    assert LEARNED < learned < 1
