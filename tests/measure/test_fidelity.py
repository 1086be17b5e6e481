"""Fidelity of layers over vocabularies small enough to enumerate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.layers import FullSoftmax, SampledSoftmax, create_layer, layer_names, parse_spec
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.proposals.base import ProposalSoftmax
from softmax_bench.measure import fidelity, peak_bytes
from softmax_bench.measure.fidelity import (
    divergence,
    exact_gradients,
    load_rows,
    measure_gradients,
    measure_samples,
)

V, H, N = 30, 4, 6
F64 = torch.float64
WITH_ROWS = [name for name in layer_names() if issubclass(parse_spec(name)[0], LinearOutputLayer)]


def problem() -> tuple[FullSoftmax, Tensor, Tensor, Tensor]:
    counts = torch.randint(1, 40, (V,)).double()
    full = FullSoftmax(H, V, class_counts=counts, dtype=F64)
    with torch.no_grad():
        full.weight.mul_(3)
    return full, torch.randn(N, H, dtype=F64), torch.randint(V, (N,)), counts


@pytest.mark.parametrize("name", WITH_ROWS)
@pytest.mark.parametrize("bias", [True, False])
def test_layers_that_keep_rows_become_the_full_model(name: str, bias: bool) -> None:
    full, hidden, _, counts = problem()
    if not bias:
        full = FullSoftmax(H, V, bias=False, dtype=F64)
    layer = create_layer(name, H, V, counts, bias=bias, dtype=F64)
    if name == "negative_sampling" and not bias:  # its distribution adds log(k q) to the scores
        assert not load_rows(layer, full, hidden)
        return
    assert load_rows(layer, full, hidden)
    torch.testing.assert_close(layer.log_prob(hidden), full.log_prob(hidden))
    if bias:
        assert isinstance(layer, LinearOutputLayer)
        assert abs(float(layer.log_normalizer(hidden).mean())) < 1e-12


def test_layers_of_other_parameters_do_not() -> None:
    full, hidden, _, counts = problem()
    assert not load_rows(create_layer("hierarchical", H, V, counts, dtype=F64), full, hidden)
    assert not load_rows(create_layer("full", H, V, bias=False, dtype=F64), full, hidden)


def test_exact_gradients_are_autograds() -> None:
    full, hidden, target, _ = problem()
    leaf, weight = hidden.clone().requires_grad_(), full.weight.detach().clone().requires_grad_()
    assert full.bias is not None
    F.cross_entropy(F.linear(leaf, weight, full.bias.detach()), target).backward()
    found = exact_gradients(full, hidden, target)
    torch.testing.assert_close(found["hidden"], leaf.grad)
    torch.testing.assert_close(found["weight"], weight.grad)


@pytest.mark.parametrize("spec", ["full", "sampled(num_samples=30)", "partial_fc(num_samples=30)"])
def test_a_layer_that_takes_all_classes_is_exact(spec: str) -> None:
    full, hidden, target, counts = problem()
    layer = create_layer(spec, H, V, counts, dtype=F64)
    load_rows(layer, full, hidden)
    assert isinstance(layer, LinearOutputLayer)
    exact = exact_gradients(full, hidden, target)
    for moments in measure_gradients(layer, exact, hidden, target, draws=16).values():
        assert moments.bias.high < 1e-7
        assert moments.variance.high < 1e-12
        assert moments.cosine.low == pytest.approx(1.0)


def test_bias_and_variance_by_enumeration() -> None:
    """Sampled softmax of one draw with replacement: the expectation is a sum over V draws."""
    full, hidden, _, counts = problem()
    hidden, target = hidden[:1], torch.tensor([3])
    layer = SampledSoftmax(
        H, V, num_samples=1, noise="unigram", replacement=True, class_counts=counts, dtype=F64
    )
    load_rows(layer, full, hidden)
    exact = exact_gradients(full, hidden, target)["weight"]
    noise, gradients = layer.sampler.noise, []
    for drawn in range(V):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(noise, "sample", lambda n, device, c=drawn: torch.tensor([c]))
            layer.zero_grad()
            layer(hidden, target).backward()
        assert layer.weight.grad is not None
        gradients.append(layer.weight.grad.to_dense())
    q = counts / counts.sum()
    every = torch.stack(gradients)
    mean = (q.view(-1, 1, 1) * every).sum(0)
    bias = float((mean - exact).norm() / exact.norm())
    variance = float((q * (every - mean).square().sum((1, 2))).sum() / exact.norm() ** 2)
    found = measure_gradients(
        layer, exact_gradients(full, hidden, target), hidden, target, draws=800
    )["weight"]
    assert found.bias.low < bias < found.bias.high
    assert found.variance.low < variance < found.variance.high
    assert found.bias.value == pytest.approx(bias, rel=0.1)
    assert found.variance.value == pytest.approx(variance, rel=0.2)


def test_more_samples_come_nearer() -> None:
    full, hidden, target, counts = problem()
    exact = exact_gradients(full, hidden, target)
    found = []
    for k in (2, 20):
        layer = SampledSoftmax(
            H, V, num_samples=k, noise="uniform", replacement=True, class_counts=counts, dtype=F64
        )
        load_rows(layer, full, hidden)
        found.append(measure_gradients(layer, exact, hidden, target, draws=200)["hidden"])
    few, many = found
    assert few.bias.low > many.bias.high
    assert few.variance.low > 2 * many.variance.high
    assert few.cosine.high < many.cosine.low


def test_memory_does_not_grow_with_the_draws() -> None:
    rows = 2000
    full = FullSoftmax(H, rows)
    hidden, target = torch.randn(20, H), torch.randint(rows, (20,))
    layer = create_layer("sampled(num_samples=800)", H, rows)
    load_rows(layer, full, hidden)
    assert isinstance(layer, LinearOutputLayer)
    exact = exact_gradients(full, hidden, target)
    peaks = [
        peak_bytes(
            lambda n=draws: measure_gradients(layer, exact, hidden, target, draws=n),  # type: ignore[misc]
            torch.device("cpu"),
        )
        for draws in (16, 40)
    ]
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 20 * full.weight.nbytes


def softmax_of_others(full: FullSoftmax, hidden: Tensor, target: Tensor) -> Tensor:
    log_p = full.log_prob(hidden).detach()
    return log_p.scatter(1, target.unsqueeze(1), -torch.inf).softmax(1)


def test_effective_sample_size_of_shared_draws_is_kishs() -> None:
    full, hidden, target, counts = problem()
    layer = SampledSoftmax(
        H, V, num_samples=7, noise="unigram", replacement=True, class_counts=counts, dtype=F64
    )
    load_rows(layer, full, hidden)
    found = measure_samples(layer, hidden, target, draws=2)
    p, q = softmax_of_others(full, hidden, target), counts / counts.sum()
    size = 7 / (p.square() / q).sum(1)
    assert found is not None
    assert found.effective == pytest.approx(float(size.median()))
    assert found.effective_low == pytest.approx(float(size.quantile(0.1)))


def test_draws_without_replacement_are_judged_by_the_variance_of_their_z() -> None:
    full, hidden, target, counts = problem()
    layer = SampledSoftmax(H, V, num_samples=10, noise="unigram", class_counts=counts, dtype=F64)
    load_rows(layer, full, hidden)
    scores, own = full.log_prob(hidden).exp().detach(), target.unsqueeze(1)
    estimates = []
    for _ in range(2000):
        sample = layer.sampler.draw(hidden.device)
        weights = torch.zeros(V, dtype=F64)
        weights[sample.rows] = torch.exp(-sample.log_expected)
        estimates.append((scores.scatter(1, own, 0.0) * weights).sum(1))
    z = torch.stack(estimates)
    measured = 10 / (1 + 10 * z.var(0) / scores.scatter(1, own, 0.0).sum(1).square())
    found = measure_samples(layer, hidden, target, draws=2)
    assert found is not None
    assert 0.6 * float(measured.median()) < found.effective < 1.05 * float(measured.median())
    everything = SampledSoftmax(H, V, num_samples=V, class_counts=counts, dtype=F64)
    load_rows(everything, full, hidden)
    found = measure_samples(everything, hidden, target, draws=2)
    assert found is not None
    assert found.effective == pytest.approx(V)
    assert abs(found.log_z_bias) < 1e-12


class _FromTheSoftmax(ProposalSoftmax):
    name = "test"

    def _snapshot(self, rows: Tensor) -> None: ...

    def _propose(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_p = self.log_prob(hidden)
        drawn = torch.multinomial(log_p.exp(), self.num_samples, replacement=True)
        return drawn, log_p.gather(1, drawn), self.target_log_prob(hidden, target)


def test_effective_sample_size_of_draws_that_follow_the_hidden_state() -> None:
    """From the softmax itself, those that hit the target are lost, and no others."""
    full, hidden, target, _ = problem()
    layer = _FromTheSoftmax(H, V, num_samples=5, refresh=1, dtype=F64)
    load_rows(layer, full, hidden)
    found = measure_samples(layer, hidden, target, draws=1000)
    lost = full.target_log_prob(hidden, target).exp().detach()
    assert found is not None
    assert found.effective == pytest.approx(float((5 * (1 - lost)).median()), rel=0.05)
    assert found.log_z_bias < 0  # Jensen: the logarithm of an unbiased estimate is too small


def test_layers_without_draws_have_no_sample_to_judge() -> None:
    full, hidden, target, counts = problem()
    layer = create_layer("in_batch", H, V, counts, dtype=F64)
    load_rows(layer, full, hidden)
    assert isinstance(layer, LinearOutputLayer)
    assert measure_samples(layer, hidden, target, draws=2) is None


def test_divergence_is_kullback_and_leiblers(monkeypatch: pytest.MonkeyPatch) -> None:
    full, hidden, _, counts = problem()
    tree = create_layer("hierarchical", H, V, counts, dtype=F64)
    log_p, log_q = full.log_prob(hidden), tree.log_prob(hidden)
    expected = F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)
    monkeypatch.setattr(fidelity, "SCORES_AT_ONCE", 2 * V)  # two hidden states at a time
    torch.testing.assert_close(divergence(full, tree, hidden), expected.detach())
    assert float(divergence(full, full, hidden).abs().max()) == 0
