"""The whole family judged from outside: likelihoods by autograd, estimates by their formula."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.classes.tree_shapes import random_tree
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import OutputLayer, create_layer
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.options import Reduction
from softmax_bench.layers.sampled.drawing import SharedSampler
from softmax_bench.layers.trees.two_level import TwoLevelSoftmax

V, H = 23, 5

EXACT = [
    "full",
    "hierarchical",
    "hierarchical(tree='random')",
    "hierarchical_kary(arity=3)",
    "adaptive(cutoffs=[4, 9, 15])",
    "adaptive(cutoffs=[4], bias=False)",
    "two_level",
    "two_level(num_clusters=7)",
    "differentiated(cutoffs=[5, 11], widths=[2, 2, 1])",
    "differentiated(cutoffs=[5, 11], widths=[5, 3, 1], nested=True)",
    "torch_linear_cross_entropy(chunk_tokens=3)",
    "torch_adaptive(cutoffs=[4, 9, 15])",
]
"""Layers whose training objective is the likelihood itself."""


def problem(tokens: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    counts = torch.randint(0, 40, (V,)).double()
    return torch.randn(tokens, H, dtype=torch.float64), torch.randint(V, (tokens,)), counts


def gradients(layer: OutputLayer, loss: Tensor) -> list[Tensor]:
    layer.zero_grad()
    loss.backward()
    return [
        torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for p in layer.parameters()
    ]


@pytest.mark.parametrize("spec", EXACT)
def test_loss_and_gradient_are_those_of_the_likelihood(spec: str) -> None:
    hidden, target, counts = problem()
    layer = create_layer(spec, H, V, counts, dtype=torch.float64)
    check_likelihood(layer, hidden, target)


def test_two_level_softmax_over_the_leaves_of_a_tree_is_a_likelihood_too(tmp_path: Path) -> None:
    hidden, target, counts = problem()
    random_tree(V).save(tmp_path / "tree.npy")
    spec = f"two_level(num_clusters=5, tree={str(tmp_path / 'tree.npy')!r})"
    layer = create_layer(spec, H, V, counts, dtype=torch.float64)
    assert isinstance(layer, TwoLevelSoftmax)
    assert layer.order.class_of_rank.tolist() == random_tree(V).leaves().tolist()
    check_likelihood(layer, hidden, target)
    with torch.no_grad():  # it starts at the unigram distribution whatever the clusters
        start = layer.log_prob(torch.zeros(1, H, dtype=torch.float64))[0]
    positive = counts.clamp(min=1)
    torch.testing.assert_close(start.exp(), positive / positive.sum())
    with pytest.raises(SoftmaxBenchError, match="the tree has 23 leaves, but there are 24"):
        create_layer(spec, H, 24)


def check_same(layer: OutputLayer, loss: Tensor, plain: Tensor) -> None:
    torch.testing.assert_close(loss, plain)
    for ours, theirs in zip(gradients(layer, loss), gradients(layer, plain), strict=True):
        torch.testing.assert_close(ours, theirs)


def check_likelihood(layer: OutputLayer, hidden: Tensor, target: Tensor) -> None:
    plain = -layer.log_prob(hidden).gather(1, target.unsqueeze(1)).mean()
    check_same(layer, layer(hidden, target), plain)


def test_adaptive_softmax_takes_torchs_state_and_gives_its_loss() -> None:
    hidden, _, _ = problem()
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(H, V, [4, 9, 15], div_value=1.5).double()
    ours = create_layer(
        "adaptive(cutoffs=[4, 9, 15], div_value=1.5, bias=False)", H, V, dtype=torch.float64
    )
    ours.load_state_dict(theirs.state_dict() | ours.order.state_dict(prefix="order."))  # type: ignore[union-attr]
    target = torch.tensor([0, 3, 4, 10, 20, 22])
    torch.testing.assert_close(ours(hidden, target), theirs(hidden, target).loss)
    torch.testing.assert_close(ours.log_prob(hidden), theirs.log_prob(hidden))


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_self_normalised_softmax_adds_the_squared_normaliser(penalty: float) -> None:
    hidden, target, counts = problem()
    layer = create_layer(f"self_normalized(penalty={penalty})", H, V, counts, dtype=torch.float64)
    assert isinstance(layer, LinearOutputLayer)
    scores = F.linear(hidden, layer.weight, layer.bias)
    plain = F.cross_entropy(scores, target) + penalty * scores.logsumexp(1).square().mean()
    check_same(layer, layer(hidden, target), plain)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_label_smoothing_is_torchs(reduction: Reduction) -> None:
    hidden, target, counts = problem()
    spec = f"full(label_smoothing=0.3, reduction={reduction!r})"
    layer = create_layer(spec, H, V, counts, dtype=torch.float64)
    assert isinstance(layer, LinearOutputLayer)
    weights = torch.rand(6 if reduction == "none" else (), dtype=torch.float64)
    scores = F.linear(hidden, layer.weight, layer.bias)
    plain = F.cross_entropy(scores, target, label_smoothing=0.3, reduction=reduction)
    loss = layer(hidden, target)
    torch.testing.assert_close(loss, plain)
    ours, theirs = (gradients(layer, (value * weights).sum()) for value in (loss, plain))
    torch.testing.assert_close(ours, theirs)


def expected(layer: LinearOutputLayer, hidden: Tensor, target: Tensor, k: int) -> Tensor:
    """Mean of the loss over all V^k samples, by their probabilities."""
    sampler = layer.sampler
    assert isinstance(sampler, SharedSampler)
    q = sampler.noise.log_prob(torch.arange(layer.num_classes)).exp()
    total = torch.zeros((), dtype=torch.float64)
    for drawn in itertools.product(range(layer.num_classes), repeat=k):
        with pytest.MonkeyPatch.context() as patch:
            fixed = torch.tensor(drawn)
            patch.setattr(sampler.noise, "sample", lambda n, device, fixed=fixed: fixed)
            total = total + q[fixed].prod() * layer(hidden, target)
    return total


def small_problem() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    counts = torch.tensor([5.0, 1.0, 9.0, 2.0, 3.0, 4.0])
    return torch.randn(2, H, dtype=torch.float64), torch.tensor([3, 0]), counts


@pytest.mark.parametrize(("calibration", "beta"), [(0.0, 1.0), (0.5, 0.7), (1.0, 0.4)])
def test_negative_sampling_by_enumeration(calibration: float, beta: float) -> None:
    """Expected loss: beta softplus(-s_t) + k sum_w q_w softplus(s_w), with q ~ count^0.75.

    With k = 2 and V = 6, gBCE's alpha is 2 / 5.
    """
    hidden, target, counts = small_problem()
    spec = f"negative_sampling(num_samples=2, calibration={calibration})"
    layer = create_layer(spec, H, 6, counts, dtype=torch.float64)
    assert isinstance(layer, LinearOutputLayer)
    scores = F.linear(hidden, layer.weight, layer.bias)
    q = counts**0.75 / (counts**0.75).sum()
    own = scores.gather(1, target.unsqueeze(1)).squeeze(1)
    plain = (beta * F.softplus(-own) + 2 * (q * F.softplus(scores)).sum(1)).mean()
    check_same(layer, expected(layer, hidden, target, 2), plain)


def test_ranking_nce_by_enumeration() -> None:
    """Its value for one sample is the cross-entropy of the target's place among k + 1 odds."""
    hidden, target, counts = small_problem()
    layer = create_layer("ranking_nce(num_samples=2)", H, 6, counts, dtype=torch.float64)
    assert isinstance(layer, LinearOutputLayer)
    odds = F.linear(hidden, layer.weight, layer.bias) - (counts / counts.sum()).log()
    q = counts / counts.sum()
    plain = torch.zeros((), dtype=torch.float64)
    for a, b in itertools.product(range(6), repeat=2):
        places = torch.stack([target, torch.full_like(target, a), torch.full_like(target, b)], 1)
        loss = F.cross_entropy(odds.gather(1, places), torch.zeros_like(target))
        plain = plain + q[a] * q[b] * loss
    check_same(layer, expected(layer, hidden, target, 2), plain)


def test_nce_by_enumeration() -> None:
    """Expected loss: softplus(-x_t) + k sum_w q_w softplus(x_w), with x = s - log Z - log k q."""
    hidden, target, counts = small_problem()
    layer = create_layer("nce(num_samples=2, log_z=0.7)", H, 6, counts, dtype=torch.float64)
    assert isinstance(layer, LinearOutputLayer)
    q = counts / counts.sum()
    odds = F.linear(hidden, layer.weight, layer.bias) - 0.7 - (2 * q).log()
    own = odds.gather(1, target.unsqueeze(1)).squeeze(1)
    plain = (F.softplus(-own) + 2 * (q * F.softplus(odds)).sum(1)).mean()
    check_same(layer, expected(layer, hidden, target, 2), plain)


def test_sampled_softmax_by_enumeration() -> None:
    """For each sample: others weighted by (1 - q_t) / (n q_j), n draws that are not the target."""
    hidden, target, counts = small_problem()
    spec = "sampled(num_samples=2, noise='unigram', replacement=True)"
    layer = create_layer(spec, H, 6, counts, dtype=torch.float64)
    assert isinstance(layer, LinearOutputLayer)
    q = counts / counts.sum()
    scores = F.linear(hidden, layer.weight, layer.bias)
    plain = torch.zeros((), dtype=torch.float64)
    for drawn in itertools.product(range(6), repeat=2):
        for n, own in enumerate(target.tolist()):
            others = torch.tensor([j for j in drawn if j != own], dtype=torch.int64)
            factor = (1 - q[own]) / (len(others) * q[others])
            z = scores[n, own].exp() + (scores[n, others].exp() * factor).sum()
            plain = plain + q[list(drawn)].prod() / len(target) * (z.log() - scores[n, own])
    check_same(layer, expected(layer, hidden, target, 2), plain)


def test_blackout_by_enumeration() -> None:
    """Ji et al. 2016, equations 4 to 6, on the list of the target and the draws unlike it."""
    hidden, target, counts = small_problem()
    spec = "blackout(num_samples=2, power=0.5)"
    layer = create_layer(spec, H, 6, counts, dtype=torch.float64)
    assert isinstance(layer, LinearOutputLayer)
    q = counts**0.5 / (counts**0.5).sum()
    odds = F.linear(hidden, layer.weight, layer.bias) - q.log()
    plain = torch.zeros((), dtype=torch.float64)
    for drawn in itertools.product(range(6), repeat=2):
        for n, own in enumerate(target.tolist()):
            places = [own, *(j for j in drawn if j != own)]
            p = odds[n, places].softmax(0)
            weight = q[list(drawn)].prod() / len(target)
            plain = plain - weight * (p[0].log() + torch.log1p(-p[1:]).sum())
    check_same(layer, expected(layer, hidden, target, 2), plain)
