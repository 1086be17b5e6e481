"""Training objectives judged by their expectation, over a vocabulary small enough to enumerate.

No draw is left to chance: the gradient at every sample that k draws can give, weighted by that
sample's probability, is the expected gradient, and its scatter the variance, to the last digit.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.layers import NCE, OutputLayer, create_layer, layer_names, parse_spec
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.proposals.base import ProposalSoftmax
from softmax_bench.layers.sampled.drawing import SharedSampler

V, H = 3, 4
TARGET = 1
COUNTS = torch.tensor([5.0, 3.0, 8.0], dtype=torch.float64)

ESTIMATORS = {
    "sampled(noise='unigram', replacement=True)": 1,
    "self_normalized_sampled(noise='unigram')": 1,
    "nce": 1,
    "nce(shared=False)": 1,
    "ranking_nce(power=0.5)": 1,
    "blackout(power=0.75)": 2,  # the squares in its second term make up for log Z's bias
    "kernel(alpha=2.0)": 1,
    "rff(nu=1.0, features=8)": 1,
    "midx(codewords=2)": 1,
    "in_batch": 1,
}
"""Objectives whose expected gradient tends to an exact one as the number k of draws grows, and
the power of 1/k that their bias falls with."""


def test_every_estimating_layer_is_judged_here() -> None:
    estimating = {name for name in layer_names() if not parse_spec(name)[0].exact}
    judged = {spec.partition("(")[0] for spec in ESTIMATORS}
    # Exact but for its penalty; without a limit; without replacement: each has a test of its own.
    assert estimating - judged == {"self_normalized", "negative_sampling", "partial_fc"}


def make(spec: str, classes: int = V, counts: Tensor = COUNTS, **options: Any) -> LinearOutputLayer:
    """A layer with rows that matter, in float64."""
    torch.manual_seed(4)
    layer = create_layer(spec, H, classes, counts, dtype=torch.float64, **options)
    assert isinstance(layer, LinearOutputLayer)
    with torch.no_grad():
        layer.weight.mul_(2.0)
    return layer


def one_hidden() -> Tensor:
    """With more dimensions than classes, its gradient tells that of every score."""
    torch.manual_seed(5)
    return torch.randn(1, H, dtype=torch.float64)


@lru_cache
def samples_of(k: int, classes: int = V) -> Tensor:
    """Every multiset of k draws, (M, k)."""
    return torch.tensor(list(itertools.combinations_with_replacement(range(classes), k)))


def probabilities_of(samples: Tensor, q: Tensor) -> Tensor:
    """Of each multiset, when draws are independent and follow q."""
    count = F.one_hot(samples, q.shape[0]).sum(1).double()
    orders = torch.lgamma(count.sum(1) + 1) - torch.lgamma(count + 1).sum(1)
    return torch.exp(orders + count @ q.log())


def gradient_at_every_sample(
    layer: LinearOutputLayer, hidden: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Gradient in the hidden state (M, H), and the probability (M,), of each sample of k draws."""
    samples = samples_of(k)
    tokens = hidden.expand(len(samples), -1).detach().requires_grad_()
    target = torch.full((len(samples),), TARGET)
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(layer, ProposalSoftmax):
            q = claimed(layer, hidden)
            proposed = samples, q.log()[samples], q.log()[target]
            patch.setattr(layer, "_propose", lambda h, t: proposed)
            layer(tokens, target).backward()
        elif layer.name == "in_batch":
            q = COUNTS / COUNTS.sum()
            for place, others in enumerate(samples):  # one batch a sample: k other tokens
                batch = torch.cat([tokens[place : place + 1], tokens[:1].detach().expand(k, -1)])
                layer(batch, torch.cat([target[:1], others]))[0].backward()
        else:
            sampler = layer.sampler
            assert isinstance(sampler, SharedSampler)
            q = sampler.noise.log_prob(torch.arange(V)).exp()
            waiting = iter([samples.flatten()] if not getattr(layer, "shared", True) else samples)
            patch.setattr(sampler.noise, "sample", lambda n, device: next(waiting))
            if getattr(layer, "shared", True):
                for place in range(len(samples)):
                    layer(tokens[place : place + 1], target[:1]).backward()
            else:
                layer(tokens, target).backward()
    assert tokens.grad is not None
    probability = probabilities_of(samples, q)
    assert float(probability.sum()) == pytest.approx(1)
    return tokens.grad, probability


def claimed(layer: ProposalSoftmax, hidden: Tensor) -> Tensor:
    """What a proposal says of every class; that draws follow it is shown elsewhere."""
    q = torch.zeros(V, dtype=torch.float64)
    drawn, log_q, _ = layer.propose(hidden.expand(200, -1), torch.zeros(200, dtype=torch.int64))
    q[drawn.flatten()] = log_q.exp().flatten()
    return q


def exact_gradient(layer: LinearOutputLayer, hidden: Tensor) -> Tensor:
    """In the hidden state, of what the layer's objective tends to."""
    hidden = hidden.detach().requires_grad_()
    scores = F.linear(hidden, layer.weight, layer.bias)
    loss = F.cross_entropy(scores, torch.tensor([TARGET]))
    if layer.name == "blackout":  # the log odds, not the log probability
        others = scores.masked_fill(F.one_hot(torch.tensor([TARGET]), V).bool(), -math.inf)
        loss = (others.logsumexp(1) - scores[:, TARGET]).mean()
    loss = loss + getattr(layer, "penalty", 0.0) * scores.logsumexp(1).square().mean()
    return torch.autograd.grad(loss, hidden)[0][0]


def bias_and_variance(spec: str, k: int) -> tuple[float, float]:
    """Distance of the expected gradient from the exact one, and the gradient's total variance."""
    hidden = one_hidden()
    options: dict[str, Any] = {} if spec == "in_batch" else {"num_samples": k}
    layer = make(spec, reduction="none" if spec == "in_batch" else "sum", **options)
    if spec.startswith("nce") and layer.bias is not None:
        with torch.no_grad():  # its limit is the likelihood of a model with log Z = 0
            layer.bias.sub_(layer.log_normalizer(hidden))
    if spec.startswith("self_normalized_sampled"):  # without replacement there would be no k
        layer.sampler.replacement, layer.sampler.num_draws = True, k  # type: ignore[union-attr]
    gradient, probability = gradient_at_every_sample(layer, hidden, k)
    mean = probability @ gradient
    variance = probability @ (gradient - mean).square().sum(1)
    return float((mean - exact_gradient(layer, hidden)).norm()), float(variance)


@pytest.mark.parametrize("spec", ESTIMATORS)
def test_variance_falls_as_one_over_k_and_so_does_the_bias(spec: str) -> None:
    bias, variance = bias_and_variance(spec, 12)
    bias_left, variance_left = bias_and_variance(spec, 24)
    assert bias > 1e-4, "nothing to see"
    assert bias_left / bias == pytest.approx(0.5 ** ESTIMATORS[spec], abs=0.07)
    assert variance_left / variance == pytest.approx(0.5, abs=0.07)


def test_without_replacement_the_bias_falls_as_the_chance_to_miss_a_class() -> None:
    """Where every class is drawn at last nothing is estimated: what is left is (1 - q)^draws."""
    hidden, bias = one_hidden(), []
    layer = make("sampled(noise='unigram', num_samples=2)")
    sampler = layer.sampler
    assert isinstance(sampler, SharedSampler)
    for draws in (15, 25):
        sampler.num_draws = draws
        gradient, probability = gradient_at_every_sample(layer, hidden, draws)
        bias.append(float((probability @ gradient - exact_gradient(layer, hidden)).norm()))
    rarest = float(COUNTS[0] / COUNTS.sum())  # of those that are not the target
    assert math.log(bias[1] / bias[0]) / 10 == pytest.approx(math.log(1 - rarest), rel=0.02)


def test_sampled_softmax_with_the_models_own_distribution_is_unbiased() -> None:
    """Blanc & Rendle 2018, theorem 2.1: at any number of draws, here two.

    Exactly: unless both fall on the target, which leaves nothing to learn from.
    """
    hidden = one_hidden()
    layer = make("sampled(noise='unigram', num_samples=2, replacement=True)")
    sampler = layer.sampler
    assert isinstance(sampler, SharedSampler)
    log_q = layer.log_prob(hidden)[0].detach()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler.noise, "log_prob", lambda classes: log_q[classes])
        gradient, probability = gradient_at_every_sample(layer, hidden, 2)
    some_other = 1 - log_q[TARGET].exp() ** 2
    torch.testing.assert_close(probability @ gradient, some_other * exact_gradient(layer, hidden))


@pytest.mark.parametrize(
    "spec", ["in_batch", "sampled(noise='unigram', num_samples=6, replacement=True)"]
)
def test_the_correction_is_the_one_for_a_positive_that_is_not_drawn(spec: str) -> None:
    """Khrylchenko et al. 2025: ``sg(1 - P_t) (log sum_j exp(s_j - log q'_j) - s_t)``.

    The sum is over the negatives other than the target, whose proposal is ``q'_j = q_j / (1 -
    q_t)``, and P_t is estimated from the same ones. That is another loss with our gradient.
    """
    layer = make(spec, reduction="sum")
    log_q = (COUNTS / COUNTS.sum()).log()
    torch.manual_seed(6)
    hidden = torch.randn(5, H, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 2, 0])
    negatives = target
    if spec != "in_batch":
        negatives = torch.tensor([2, 0, 1, 1, 2, 0])
        layer.sampler.noise.sample = lambda n, device: negatives  # type: ignore[union-attr]
    gradient = torch.autograd.grad(layer(hidden, target), (hidden, layer.weight))

    scores = F.linear(hidden, layer.weight, layer.bias)
    own = scores.gather(1, target.unsqueeze(1)).squeeze(1)
    others = negatives != target.unsqueeze(1)
    log_proposal = log_q[negatives] - torch.log1p(-log_q[target].exp()).unsqueeze(1)
    corrected = (scores[:, negatives] - log_proposal).masked_fill(~others, -math.inf)
    mean_of_others = corrected.logsumexp(1) - others.sum(1).log()
    uncertainty = 1 - torch.exp(own - torch.logaddexp(own, mean_of_others))
    loss = (uncertainty.detach() * (corrected.logsumexp(1) - own)).sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(loss, (hidden, layer.weight)))


def test_negative_samplings_gradient_and_variance_grow_with_k() -> None:
    """Its negatives are summed, not averaged: it tends to nothing."""
    hidden, mean, variance = one_hidden(), [], []
    for k in (2, 4, 8):
        layer = make(f"negative_sampling(num_samples={k})", bias=False)  # it starts lower by log k
        gradient, probability = gradient_at_every_sample(layer, hidden, k)
        mean.append(probability @ gradient)
        variance.append(float(probability @ (gradient - mean[-1]).square().sum(1)))
    torch.testing.assert_close(mean[2] - mean[1], 2 * (mean[1] - mean[0]))
    assert variance == pytest.approx([variance[0], 2 * variance[0], 4 * variance[0]])


def test_partial_fcs_bias_is_the_share_of_classes_left_out() -> None:
    """Uniform without replacement and without correction: exact once all classes are in."""
    classes = 12
    hidden = one_hidden()
    bias = []
    for size in (classes, classes - 1, classes - 2):
        layer = make(f"partial_fc(num_samples={size})", classes, torch.ones(classes))
        others = [j for j in range(classes) if j != TARGET]
        gradients = []
        for left_in in itertools.combinations(others, size - 1):
            rows = torch.tensor(sorted([TARGET, *left_in]))
            with pytest.MonkeyPatch.context() as patch:
                drawn = rows, torch.zeros(len(rows), dtype=torch.float64)
                patch.setattr(layer, "draw", lambda target, drawn=drawn: drawn)
                state = hidden.detach().requires_grad_()
                loss = layer(state, torch.tensor([TARGET]))
            gradients.append(torch.autograd.grad(loss, state)[0][0])
        scores = F.linear(state, layer.weight, layer.bias)
        exact = F.cross_entropy(scores, torch.tensor([TARGET]))
        wanted = torch.autograd.grad(exact, state)[0][0]
        bias.append(float((torch.stack(gradients).mean(0) - wanted).norm()))
    assert bias[0] < 1e-12
    assert bias[2] / bias[1] == pytest.approx(2, rel=0.2)


def test_learned_log_z_gets_its_gradient() -> None:
    hidden, target = torch.randn(6, H, dtype=torch.float64), torch.randint(20, (6,))
    counts = torch.randint(1, 40, (20,)).double()
    for shared in (True, False):
        torch.manual_seed(0)
        layer = NCE(H, 20, shared=shared, log_z="learned", class_counts=counts, dtype=torch.float64)
        losses = []
        for shift in (-1e-5, 0.0, 1e-5):
            torch.manual_seed(5)
            with torch.no_grad():
                layer.log_z.fill_(shift)
            losses.append(layer(hidden, target))
        losses[1].backward()
        numeric = (losses[2] - losses[0]).detach() / 2e-5
        assert layer.log_z.grad is not None
        torch.testing.assert_close(layer.log_z.grad, numeric, rtol=1e-5, atol=1e-8)


def test_estimated_log_z_finds_the_normaliser() -> None:
    hidden, target = torch.randn(6, H, dtype=torch.float64), torch.randint(20, (6,))
    counts = torch.randint(1, 40, (20,)).double()
    layer: OutputLayer = NCE(
        H, 20, num_samples=500, log_z="estimated", class_counts=counts, dtype=torch.float64
    )
    assert isinstance(layer, NCE)
    assert layer.bias is not None
    with torch.no_grad():
        layer.bias.add_(2.0)
        for _ in range(500):
            layer(hidden, target)
    assert float(layer.log_z) == pytest.approx(float(layer.log_normalizer(hidden).mean()), abs=0.05)
