"""Training objectives judged by their expectation, over a vocabulary small enough to enumerate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.layers import NCE, FullSoftmax, HierarchicalSoftmax, SampledSoftmax
from softmax_bench.layers.base import Reduction
from softmax_bench.layers.linear import LinearOutputLayer

V, H = 20, 4


def exact_gradient(layer: LinearOutputLayer, hidden: Tensor, target: Tensor) -> Tensor:
    """Of the mean negative log-likelihood in the weight, by autograd."""
    weight = layer.weight.detach().clone().requires_grad_()
    bias = None if layer.bias is None else layer.bias.detach()
    F.cross_entropy(F.linear(hidden, weight, bias), target).backward()
    assert weight.grad is not None
    return weight.grad


def _gradient_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.to_dense()


def mean_gradient(
    layer: LinearOutputLayer, hidden: Tensor, target: Tensor, draws: int
) -> tuple[Tensor, Tensor]:
    """Mean of the layer's stochastic gradient in the weight, and its standard error."""
    total = torch.zeros_like(layer.weight)
    square = torch.zeros_like(layer.weight)
    for _ in range(draws):
        layer.weight.grad = None
        layer(hidden, target).backward()
        gradient = _gradient_of(layer.weight)
        total += gradient
        square += gradient**2
    mean = (total / draws).detach()
    error = ((square / draws - mean**2).clamp(min=0) / draws).sqrt()
    return mean, error.detach()


def problem() -> tuple[Tensor, Tensor, Tensor]:
    counts = torch.randint(1, 40, (V,)).double()
    return torch.randn(6, H, dtype=torch.float64), torch.randint(V, (6,)), counts


def test_full_softmax_is_the_likelihood() -> None:
    hidden, target, counts = problem()
    layer = FullSoftmax(H, V, class_counts=counts, dtype=torch.float64)
    layer(hidden, target).backward()
    torch.testing.assert_close(layer.weight.grad, exact_gradient(layer, hidden, target))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_label_smoothing_is_torchs(reduction: Reduction) -> None:
    hidden, target, counts = problem()
    layer = FullSoftmax(
        H, V, label_smoothing=0.3, reduction=reduction, class_counts=counts, dtype=torch.float64
    )
    weights = torch.rand(6 if reduction == "none" else (), dtype=torch.float64)
    (layer(hidden, target) * weights).sum().backward()
    fast = _gradient_of(layer.weight)
    layer.weight.grad = None
    scores = F.linear(hidden, layer.weight, layer.bias)
    loss = F.cross_entropy(scores, target, label_smoothing=0.3, reduction=reduction)
    (loss * weights).sum().backward()
    torch.testing.assert_close(fast, layer.weight.grad)
    torch.testing.assert_close(layer(hidden, target), loss)


def test_hierarchical_softmax_is_its_likelihood() -> None:
    hidden, target, counts = problem()
    layer = HierarchicalSoftmax(H, V, class_counts=counts, dtype=torch.float64)
    layer(hidden, target).backward()
    assert layer.weight.grad is not None
    fast = layer.weight.grad.to_dense()
    layer.weight.grad = None
    (-layer.log_prob(hidden).gather(1, target.unsqueeze(1)).mean()).backward()
    torch.testing.assert_close(fast, layer.weight.grad)


def test_sampled_softmax_with_the_models_own_distribution_is_unbiased() -> None:
    """Blanc & Rendle 2018, theorem 2.1: at any number of samples, here two."""
    torch.manual_seed(3)
    hidden, target = torch.randn(1, H, dtype=torch.float64), torch.tensor([4])
    layer = SampledSoftmax(
        H, V, num_samples=2, noise="unigram", replacement=True, dtype=torch.float64
    )
    log_q = layer.log_prob(hidden)[0].detach()
    noise = layer.sampler.noise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise, "sample", lambda n, device: torch.multinomial(log_q.exp(), n, True))
        patch.setattr(noise, "log_prob", lambda classes: log_q[classes])
        mean, error = mean_gradient(layer, hidden, target, 4000)
    z = (mean - exact_gradient(layer, hidden, target)) / error.clamp(min=1e-9)
    assert z.abs().max() < 4.5


@pytest.mark.parametrize("replacement", [True, False])
def test_sampled_softmax_bias_falls_as_samples_grow(replacement: bool) -> None:
    hidden, target, counts = problem()
    distance = []
    for samples in (2, 12, 2000 if replacement else V):
        torch.manual_seed(1)
        layer = SampledSoftmax(
            H,
            V,
            num_samples=samples,
            noise="uniform",
            replacement=replacement,
            class_counts=counts,
            dtype=torch.float64,
        )
        mean, _ = mean_gradient(layer, hidden, target, 400)
        exact = exact_gradient(layer, hidden, target)
        distance.append(float((mean - exact).norm() / exact.norm()))
    assert distance[0] > 2 * distance[1] > 4 * distance[2]
    assert distance[2] < (0.01 if replacement else 1e-9)


def test_the_loss_of_sampled_softmax_estimates_cross_entropy() -> None:
    hidden, target, counts = problem()
    layer = SampledSoftmax(
        H, V, num_samples=500, replacement=True, class_counts=counts, dtype=torch.float64
    )
    exact = -layer.target_log_prob(hidden, target).mean()
    mean = torch.stack([layer(hidden, target).detach() for _ in range(300)]).mean()
    torch.testing.assert_close(mean, exact.detach(), rtol=0.01, atol=0)


@pytest.mark.parametrize("shared", [True, False])
def test_nce_gradient_tends_to_maximum_likelihood(shared: bool) -> None:
    """Mnih & Teh 2012, section 3.1: for a model that is normalised, as k grows."""
    hidden, target, counts = problem()
    distance = []
    for k in (1, 10, 300):
        torch.manual_seed(1)
        layer = NCE(H, V, num_samples=k, shared=shared, class_counts=counts, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.mul_(0.0)  # normalised for every hidden state: log Z = 0
        mean, _ = mean_gradient(layer, hidden, target, 600)
        exact = exact_gradient(layer, hidden, target)
        distance.append(float((mean - exact).norm() / exact.norm()))
    assert distance[0] > 2 * distance[1] > 4 * distance[2]
    assert distance[2] < 0.05


def test_nce_expected_gradient_by_enumeration() -> None:
    """Mean gradient of one token against the sum over all classes, at k = 3."""
    hidden, target = torch.randn(1, H, dtype=torch.float64), torch.tensor([2])
    counts = torch.randint(1, 40, (V,)).double()
    k = 3
    layer = NCE(H, V, num_samples=k, class_counts=counts, log_z=0.7, dtype=torch.float64)
    weight = layer.weight.detach().clone().requires_grad_()
    assert layer.bias is not None
    scores = F.linear(hidden, weight, layer.bias.detach())[0] - 0.7
    q = counts / counts.sum()
    odds = scores - (k * q).log()
    (F.softplus(-odds[2]) + k * (q * F.softplus(odds)).sum()).backward()
    mean, error = mean_gradient(layer, hidden, target, 4000)
    assert weight.grad is not None
    assert ((mean - weight.grad) / error.clamp(min=1e-9)).abs().max() < 4.5


def test_learned_log_z_gets_its_gradient() -> None:
    hidden, target, counts = problem()
    for shared in (True, False):
        torch.manual_seed(0)
        layer = NCE(H, V, shared=shared, log_z="learned", class_counts=counts, dtype=torch.float64)
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
    hidden, target, counts = problem()
    layer = NCE(H, V, num_samples=500, log_z="estimated", class_counts=counts, dtype=torch.float64)
    assert layer.bias is not None
    with torch.no_grad():
        layer.bias.add_(2.0)
    for _ in range(600):
        layer(hidden, target)
    assert float(layer.log_z) == pytest.approx(float(layer.log_normalizer(hidden).mean()), abs=0.05)
