"""Checks of the distribution that a layer defines, and of the state that determines it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from softmax_bench.layers.base import OutputLayer
from softmax_bench.testing.layers import Factory, random_hidden


def check_distribution(layer: OutputLayer) -> None:
    """``log_prob`` sums to 1, and ``target_log_prob`` agrees with it."""
    hidden = random_hidden(layer, 2, 3)
    log_prob = layer.log_prob(hidden)
    assert log_prob.shape == (2, 3, layer.num_classes), "log_prob must have shape (..., V)"
    total = log_prob.exp().sum(-1)
    assert torch.allclose(total, torch.ones_like(total)), "probabilities must sum to 1"
    for target in (torch.zeros(2, 3, dtype=torch.int64), torch.randint(layer.num_classes, (2, 3))):
        own = layer.target_log_prob(hidden, target)
        wanted = log_prob.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        assert torch.allclose(own, wanted), "target_log_prob must agree with log_prob"
    ignored = torch.full((2, 3), layer.ignore_index)
    assert not layer.target_log_prob(hidden, ignored).any(), "ignored targets must give 0"


def check_search(layer: OutputLayer) -> None:
    """``topk`` and ``sample`` agree with ``log_prob``."""
    hidden = random_hidden(layer, 4)
    log_prob = layer.log_prob(hidden)
    for k in {1, min(5, layer.num_classes), layer.num_classes}:
        values, classes = layer.topk(hidden, k)
        wanted = log_prob.topk(k).values
        assert torch.allclose(values, wanted), "topk must find the most probable classes"
        found = log_prob.gather(-1, classes)
        assert torch.allclose(found, wanted), "topk's ids must belong to its values"
    draws = 2000
    drawn = layer.sample(hidden[:1].expand(draws, -1))
    assert drawn.shape == (draws,), "sample must have the shape of the hidden states without H"
    expected = log_prob[0].exp()
    frequency = drawn.bincount(minlength=layer.num_classes) / draws
    error = (expected * (1 - expected) / draws).sqrt() + 1 / draws
    assert bool(((frequency - expected).abs() < 6 * error).all()), "sample must follow log_prob"


def check_state(factory: Factory, layer: OutputLayer, counts: Tensor) -> None:
    """A copy, a loaded state dict and ``float()`` give the same distribution."""
    hidden = random_hidden(layer, 3)
    # With other counts, everything that the layer derives from them must come with the state.
    other = factory(6, layer.num_classes, class_counts=counts.flip(0), dtype=torch.float64)
    other.load_state_dict(layer.state_dict())
    for twin in (other, copy.deepcopy(layer)):
        same = torch.allclose(twin.log_prob(hidden), layer.log_prob(hidden))
        assert same, "a copy and a layer with loaded state must give the same distribution"
        target = torch.randint(layer.num_classes, (3,))
        own = twin.target_log_prob(hidden, target)
        assert torch.allclose(own, layer.target_log_prob(hidden, target)), "state: target_log_prob"
    single = copy.deepcopy(layer).float()
    log_prob = single.log_prob(hidden.float())
    assert log_prob.dtype == torch.float32, "layer.float() must make a float32 layer"
    loss = single(hidden.float(), torch.zeros(3, dtype=torch.int64))
    assert loss.dtype == torch.float32, "the loss must have the layer's dtype"


def check_empty(factory: Factory) -> None:
    """Every method works on an empty batch."""
    layer = factory(6, 5, class_counts=torch.ones(5), dtype=torch.float64)
    hidden, target = random_hidden(layer, 0).requires_grad_(), torch.zeros(0, dtype=torch.int64)
    loss = layer(hidden, target)
    loss.backward()
    assert float(loss.detach()) == 0.0, "an empty batch must give loss 0"
    assert layer.log_prob(hidden).shape == (0, 5), "log_prob of an empty batch"
    assert layer.target_log_prob(hidden, target).shape == (0,), "target_log_prob of an empty batch"
    assert layer.topk(hidden, 2)[0].shape == (0, 2), "topk of an empty batch"
    assert layer.sample(hidden).shape == (0,), "sample of an empty batch"
