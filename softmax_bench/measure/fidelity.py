"""How close an approximation comes to full softmax: its gradient, samples and distribution.

Layers with one row and one offset per class define the same model as full softmax and differ only
in how they train it: with its parameters, their gradient is compared with the exact one. Layers
with other parameters (trees, clusters) have no comparable gradient, but the distribution that any
layer has learned can be compared with the full model's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.layers import FullSoftmax, OutputLayer
from softmax_bench.layers.linear import SCORES_AT_ONCE, LinearOutputLayer
from softmax_bench.layers.proposals.base import ProposalSoftmax
from softmax_bench.layers.sampled.drawing import SharedSampler
from softmax_bench.measure.moments import MomentAccumulator
from softmax_bench.ops import pair_scores
from softmax_bench.records.result import GradientMoments, SampleQuality


def load_rows(layer: OutputLayer, full: FullSoftmax, hidden: Tensor) -> bool:
    """Make ``layer`` define the same model as ``full``, and return whether that is possible.

    The offsets are shifted so that ``log Z`` is 0 on average over ``hidden``. This changes no
    probability, and is the only fair choice for objectives that assume normalised scores.

    Args:
        layer: Any layer; it is changed if it has one row per class.
        full: The trained model.
        hidden: (N, H).
    """
    if not isinstance(layer, LinearOutputLayer):
        return False
    with torch.no_grad():
        layer.weight.copy_(full.weight)
        if layer.bias is not None:
            offset = full.bias if full.bias is not None else torch.zeros_like(layer.bias)
            wanted_offsets = offset - full.log_normalizer(hidden).mean()
            offsets = layer.offsets()
            assert offsets is not None
            layer.bias.add_(wanted_offsets - offsets)
        # A foreign layer may define another model with its rows.
        some = hidden[:8]
        return torch.allclose(layer.log_prob(some), full.log_prob(some), rtol=1e-3, atol=1e-3)


def exact_gradients(full: FullSoftmax, hidden: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Gradients of the mean negative log-likelihood in ``"hidden"`` (N, H) and ``"weight"``."""
    model = FullSoftmax(
        full.in_features, full.num_classes, bias=full.bias is not None,
        device=full.weight.device, dtype=full.weight.dtype,
    )  # fmt: skip
    model.load_state_dict(full.state_dict())
    return dict(_gradients(model, hidden, target))


def measure_gradients(
    layer: LinearOutputLayer,
    exact: dict[str, Tensor],
    hidden: Tensor,
    target: Tensor,
    *,
    draws: int,
    on_draw: Callable[[], None] = lambda: None,
) -> dict[str, GradientMoments]:
    """Compare the gradient of ``layer`` with the exact one.

    Args:
        layer: The layer, after :func:`load_rows`.
        exact: Result of :func:`exact_gradients` for the same hidden states and targets.
        hidden: (N, H).
        target: (N,).
        draws: Training steps without an update, each with fresh samples.
        on_draw: Called after each draw.

    Raises:
        SoftmaxBenchError: There are too few draws, or the exact gradient is zero.
    """
    moments = {name: MomentAccumulator(gradient) for name, gradient in exact.items()}
    layer.train()
    for _ in range(draws):
        for name, gradient in _gradients(layer, hidden, target):
            moments[name].add(gradient)
        on_draw()
    layer.zero_grad()
    return {name: accumulator.result() for name, accumulator in moments.items()}


def _gradients(
    layer: LinearOutputLayer, hidden: Tensor, target: Tensor
) -> Iterator[tuple[str, Tensor]]:
    layer.zero_grad()
    leaf = hidden.detach().clone().requires_grad_()
    layer(leaf, target).backward()
    assert leaf.grad is not None
    assert layer.weight.grad is not None
    yield "hidden", leaf.grad
    yield "weight", layer.weight.grad


@torch.no_grad()
def measure_samples(
    layer: LinearOutputLayer, hidden: Tensor, target: Tensor, *, draws: int
) -> SampleQuality | None:
    """Judge the classes that ``layer`` draws; None if it draws none.

    The effective sample size of samples shared by a batch is computed from the expected count of
    every class. It is exact with replacement and a lower bound without, because it ignores that
    drawing one class leaves less room for others. That of samples that follow the hidden state is
    estimated from the draws, weighted by exact probabilities: the usual estimate with relative
    weights does not notice if a sample has missed what matters.
    """
    sampler = getattr(layer, "sampler", None)
    if isinstance(sampler, SharedSampler):
        inverse = _inverse_size_of_shared(layer, sampler, hidden, target)
        estimates = [_log_z_of_shared(layer, sampler, hidden, target) for _ in range(draws)]
    elif isinstance(layer, ProposalSoftmax):
        drawn = [_own_draw(layer, hidden, target) for _ in range(draws)]
        estimates = [log_z for log_z, _ in drawn]
        inverse = torch.stack([share for _, share in drawn]).mean(0)
    else:
        return None
    size = 1 / inverse
    error = torch.stack(estimates) - layer.log_normalizer(hidden).double()
    return SampleQuality(
        effective=float(size.median()),
        effective_low=float(size.quantile(0.1)),
        log_z_bias=float(error.mean()),
        log_z_sd=float(error.std()),
    )


def _inverse_size_of_shared(
    layer: LinearOutputLayer, sampler: SharedSampler, hidden: Tensor, target: Tensor
) -> Tensor:
    """Inverse effective sample size for the classes other than the target, (N,) float64."""
    classes = torch.arange(layer.num_classes, device=hidden.device)
    log_expected = sampler.log_expected_count(classes)
    log_weight, least = -log_expected, 0.0
    if not sampler.replacement:  # the variance of a class's indicator
        log_weight = torch.log(torch.expm1(-log_expected).clamp(min=0.0))
        least = 1 / min(sampler.num_samples, layer.num_classes)
    inverse_sizes = []
    for some, ids in zip(*_chunks(layer, hidden, target), strict=True):
        log_p = layer.log_prob(some).double()
        log_p.scatter_(1, ids.unsqueeze(1), -math.inf)
        log_p -= log_p.logsumexp(1, keepdim=True)
        inverse_sizes.append(least + (2 * log_p + log_weight).logsumexp(1).exp())
    return torch.cat(inverse_sizes)


def _log_z_of_shared(
    layer: LinearOutputLayer, sampler: SharedSampler, hidden: Tensor, target: Tensor
) -> Tensor:
    """Estimate of log Z from one sample, with the target's own part known, (N,) float64."""
    sample = sampler.draw(hidden.device)
    bias = None if layer.bias is None else layer.bias[sample.rows]
    scores = F.linear(hidden, layer.weight[sample.rows], bias).double()
    scores += sample.count.log() - sample.log_expected
    scores.masked_fill_(sample.rows == target.unsqueeze(1), -math.inf)
    return torch.logaddexp(_own_scores(layer, hidden, target), scores.logsumexp(1))


def _own_draw(layer: ProposalSoftmax, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased estimates of log Z and of the inverse effective sample size."""
    classes, log_expected = layer.propose_others(hidden, target)
    starts = torch.arange(len(hidden) + 1, device=hidden.device) * classes.shape[1]
    scores = pair_scores(hidden, layer.weight, layer.bias, starts, classes.flatten())
    scores = scores.view_as(classes).double()
    own = _own_scores(layer, hidden, target)
    log_z = layer.log_normalizer(hidden).double()
    log_others = log_z + torch.log1p(-(own - log_z).exp().clamp(max=1 - 1e-12))
    share = (2 * (scores - log_others.unsqueeze(1) - log_expected)).logsumexp(1).exp()
    return torch.logaddexp(own, (scores - log_expected).logsumexp(1)), share


def _own_scores(layer: LinearOutputLayer, hidden: Tensor, target: Tensor) -> Tensor:
    scores = torch.linalg.vecdot(hidden, layer.weight[target]).double()
    return scores if layer.bias is None else scores + layer.bias[target]


@torch.no_grad()
def divergence(full: OutputLayer, layer: OutputLayer, hidden: Tensor) -> Tensor:
    """``KL(full || layer)`` in nats at each hidden state (N, H), (N,) float64.

    Both distributions are normalised exactly. No step holds N x V numbers.
    """
    divergences = []
    for (some,) in zip(*_chunks(full, hidden), strict=True):
        log_p, log_q = full.log_prob(some).double(), layer.log_prob(some).double()
        divergences.append((log_p.exp() * (log_p - log_q)).sum(1))
    return torch.cat(divergences)


def _chunks(layer: OutputLayer, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    size = max(1, SCORES_AT_ONCE // layer.num_classes)
    return [tensor.split(size) for tensor in tensors]
