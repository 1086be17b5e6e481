"""What docs/theory.md says of output layers, executed."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.classes.huffman import huffman_tree
from softmax_bench.corpora.synthetic import SyntheticLanguage
from softmax_bench.layers import create_layer
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.sampled.drawing import SharedSampler
from softmax_bench.measure import zipf_counts
from tests.theory.fitting import fit

V, K = 11, 4


def full_softmax() -> tuple[LinearOutputLayer, Tensor]:
    layer = create_layer("full", K, V, torch.arange(1, V + 1), dtype=torch.float64)
    assert isinstance(layer, LinearOutputLayer)
    return layer, torch.randn(3, K, dtype=torch.float64, requires_grad=True)


def test_a_shift_of_all_rows_changes_nothing() -> None:
    layer, hidden = full_softmax()
    before = layer.log_prob(hidden)
    torch.testing.assert_close(before.exp().sum(1), torch.ones(3, dtype=torch.float64))
    with torch.no_grad():
        layer.weight.add_(torch.randn(K, dtype=torch.float64))
        assert layer.bias is not None
        layer.bias.add_(7.0)
    torch.testing.assert_close(layer.log_prob(hidden), before)


def test_gradients_of_the_log_probability() -> None:
    """d log p(w|u) / d beta_j = ([j = w] - p_j) v_u, and / d v_u = beta_w - sum_j p_j beta_j."""
    layer, hidden = full_softmax()
    target = torch.tensor([2, 0, 9])
    log_p = -layer(hidden, target) * len(target)
    of_rows, of_hidden = torch.autograd.grad(log_p, [layer.weight, hidden])
    p = layer.log_prob(hidden).exp()
    error = F.one_hot(target, V).double() - p
    torch.testing.assert_close(of_rows, error.t() @ hidden)
    torch.testing.assert_close(of_hidden, layer.weight[target] - p @ layer.weight)


RANK = 6
EXCESS = {1: 0.212, 2: 0.133, 3: 0.0819, 4: 0.0399, 5: 0.0143, 6: 0.0, 7: 0.0}
"""Nats above the entropy that full softmax of K dimensions can reach at best."""


@lru_cache
def language_of_known_rank() -> Tensor:
    """(40 contexts, 30 words): probabilities whose logarithms are of rank 6 but for a shift."""
    draw = torch.Generator().manual_seed(0)
    contexts, words = (
        torch.randn(size, RANK, generator=draw, dtype=torch.float64) for size in (40, 30)
    )
    return (contexts @ words.t() / RANK**0.5).softmax(1)


@pytest.mark.parametrize("dimensions", EXCESS)
def test_a_softmax_of_fewer_dimensions_than_the_rank_cannot_express_it(dimensions: int) -> None:
    """The best fit of all, context vectors free, leaves just what the page says."""
    joint = language_of_known_rank() / 40
    _, _, cross_entropy = fit(joint, dimensions)
    entropy = -float((joint * (joint * 40).log()).sum())
    assert cross_entropy - entropy == pytest.approx(EXCESS[dimensions], rel=0.01, abs=1e-4)


def test_what_a_step_costs_in_classes_dimensions_and_tokens() -> None:
    """Full softmax is linear in each; a path grows like log V, a sample not at all."""

    def flops(spec: str, classes: int, width: int = 64, tokens: int = 100) -> float:
        return create_layer(spec, width, classes, zipf_counts(classes)).cost(tokens).flops

    for spec in ("full", "hierarchical", "sampled(num_samples=50)"):
        assert flops(spec, 1000, 128) == pytest.approx(2 * flops(spec, 1000))
        assert flops(spec, 1000, 64, 200) == pytest.approx(2 * flops(spec, 1000))
    assert flops("full", 100_000) == 100 * flops("full", 1000)
    assert flops("hierarchical", 100_000) < 2 * flops("hierarchical", 1000)
    assert flops("sampled(num_samples=50)", 100_000) == flops("sampled(num_samples=50)", 1000)


def test_rare_classes_cannot_tell_many_dimensions() -> None:
    """Of 10^5 classes by Zipf's law, 97 % are seen fewer than 256 times in 10^7 tokens."""
    share = zipf_counts(100_000) / zipf_counts(100_000).sum()
    rare = share * 1e7 < 256
    assert rare.mean() == pytest.approx(0.97, abs=0.005)
    assert share[rare].sum() == pytest.approx(0.28, abs=0.005)
    wide = sum(p.numel() for p in create_layer("full", 256, 100_000).parameters())
    narrow = create_layer("adaptive", 256, 100_000, zipf_counts(100_000))
    assert sum(p.numel() for p in narrow.parameters()) < 0.3 * wide


def test_huffman_codes_are_within_one_bit_of_the_entropy() -> None:
    for counts in (zipf_counts(10_000), np.ones(777), 2.0 ** np.arange(40)):
        p = counts / counts.sum()
        entropy = -(p * np.log2(p)).sum()
        assert entropy - 1e-9 <= huffman_tree(counts).depths @ p < entropy + 1


@lru_cache
def bigrams() -> Tensor:
    """Joint probabilities of two successive words in a text of the synthetic language."""
    text = SyntheticLanguage(V).draw(50_000, np.random.default_rng(0))
    counts = np.ones((V, V))  # so that every pair has a finite logarithm
    np.add.at(counts, (text[:-1], text[1:]), 1)
    return torch.from_numpy(counts / counts.sum())


def expected_gradient(spec: str, scores: Tensor, k: int) -> Tensor:
    """Gradient in the scores (contexts, words) of a layer's objective over all pairs and draws.

    Contexts are one-hot, so that the layer's rows are the scores themselves.
    """
    joint = bigrams()
    counts = joint.sum(0)
    layer = create_layer(
        spec, V, V, counts, reduction="none", bias=False, dtype=torch.float64
    )  # fmt: skip
    assert isinstance(layer, LinearOutputLayer)
    with torch.no_grad():
        layer.weight.copy_(scores.t())
    hidden = torch.eye(V, dtype=torch.float64).repeat_interleave(V, 0)
    target = torch.arange(V).repeat(V)
    sampler = layer.sampler
    assert isinstance(sampler, SharedSampler)
    for drawn in itertools.product(range(V), repeat=k):
        with pytest.MonkeyPatch.context() as patch:
            fixed = torch.tensor(drawn)
            patch.setattr(sampler.noise, "sample", lambda n, device, fixed=fixed: fixed)
            losses = layer(hidden, target)
        (counts[fixed].prod() * (joint.flatten() * losses).sum()).backward()
    assert layer.weight.grad is not None
    return layer.weight.grad.to_dense().t()


@pytest.mark.parametrize("k", [1, 2])
def test_negative_sampling_factorises_shifted_pmi(k: int) -> None:
    """Its gradient vanishes where scores are log p(u,w) / (p(u) p(w)) - log k, and only there."""
    joint = bigrams()
    pmi = joint.log() - joint.sum(1, keepdim=True).log() - joint.sum(0).log()
    spec = f"negative_sampling(num_samples={k}, power=1)"
    assert expected_gradient(spec, pmi - math.log(k), k).abs().max() < 1e-12
    assert expected_gradient(spec, pmi + 0.1, k).abs().max() > 1e-4


@pytest.mark.parametrize("k", [1, 2])
def test_nce_finds_log_probabilities_at_any_number_of_samples(k: int) -> None:
    """Its gradient vanishes at scores that are log p(w|u), normalised without a normaliser."""
    joint = bigrams()
    conditional = (joint / joint.sum(1, keepdim=True)).log()
    assert expected_gradient(f"nce(num_samples={k})", conditional, k).abs().max() < 1e-12
    assert expected_gradient(f"nce(num_samples={k})", conditional + 0.1, k).abs().max() > 1e-4


def test_sampled_softmax_of_few_samples_has_another_optimum() -> None:
    """At the true probabilities its expected gradient does not vanish."""
    joint = bigrams()
    conditional = (joint / joint.sum(1, keepdim=True)).log()
    spec = "sampled(num_samples=2, noise='unigram', replacement=True)"
    assert expected_gradient(spec, conditional, 2).abs().max() > 1e-4
