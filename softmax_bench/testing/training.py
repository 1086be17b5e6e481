"""Checks of the training loss, its gradients, and what training changes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from softmax_bench.classes.draws import watching_draws
from softmax_bench.layers.base import OutputLayer
from softmax_bench.layers.options import Reduction
from softmax_bench.lm.checkpoint import memory, recall
from softmax_bench.testing.layers import Factory, random_hidden


def check_loss(layer: OutputLayer, *, every_gradient: bool) -> None:
    """The loss and its gradients are finite, and row-sparse where the layer says so."""
    hidden = random_hidden(layer, 2, 4).requires_grad_()
    target = torch.randint(layer.num_classes, (2, 4))
    target[0, 0] = layer.ignore_index
    loss = layer(hidden, target)
    assert loss.shape == (), "forward must give a scalar"
    assert bool(loss.isfinite()), "the loss must be finite"
    loss.backward()
    assert hidden.grad is not None, "the hidden states must get a gradient"
    assert bool(hidden.grad.isfinite().all()), "gradients must be finite"
    assert not hidden.grad[0, 0].any(), "an ignored target must give no gradient"
    row_sparse = {id(p) for p in layer.row_sparse_parameters()}
    for name, parameter in layer.named_parameters():
        grad = parameter.grad
        if grad is None and not every_gradient:
            continue
        assert grad is not None, f"{name} must get a gradient in every step"
        assert grad.is_sparse == (id(parameter) in row_sparse), f"{name}: row_sparse_parameters"
        if grad.is_sparse:
            assert grad.is_coalesced(), f"{name}: a row-sparse gradient must be coalesced"
        parameter.grad = None
    nothing = layer(hidden, torch.full((2, 4), layer.ignore_index))
    assert float(nothing.detach()) == 0.0, "without targets the loss must be 0"
    _check_drawing(layer, hidden, target)
    cost = layer.cost(8)
    assert 0 <= cost.flops < math.inf, "flops must be a number of at least 0"
    assert 0 <= cost.rows_touched < math.inf, "rows_touched must be a number of at least 0"


def _check_drawing(layer: OutputLayer, hidden: Tensor, target: Tensor) -> None:
    """Apart from dropout modules, only the drawing of classes may be random in a training step."""
    seen = []

    @contextmanager
    def watch() -> Iterator[None]:
        seen.append(True)
        yield

    before = torch.get_rng_state()
    layer.eval().training = True
    with watching_draws(watch):
        layer(hidden, target)
    layer.train()
    drawn = not torch.equal(before, torch.get_rng_state())
    assert seen or not drawn, (
        "the layer draws random numbers: mark the method that draws classes with "
        "softmax_bench.classes.draws.draws, or its time will be counted as forward"
    )


def check_likelihood(layer: OutputLayer) -> None:
    """An exact layer has the loss and gradients of ``-log_prob``."""
    if not layer.exact or not getattr(layer, "plain", True):
        return
    hidden = random_hidden(layer, 2, 4).requires_grad_()
    target = torch.randint(layer.num_classes, (2, 4))

    def gradients(loss: Tensor) -> list[Tensor]:
        leaves = [hidden, *layer.parameters()]
        for leaf in leaves:
            leaf.grad = None
        loss.backward()
        return [torch.zeros_like(x) if x.grad is None else x.grad.to_dense() for x in leaves]

    loss = layer(hidden, target)
    plain = -layer.log_prob(hidden).gather(-1, target.unsqueeze(-1)).mean()
    assert torch.allclose(loss, plain), "the loss of an exact layer must be the mean of -log_prob"
    with_all = plain + 0 * hidden.sum()  # with one class, nothing depends on the hidden states
    for ours, wanted in zip(gradients(loss), gradients(with_all), strict=True):
        assert torch.allclose(ours, wanted), (
            "gradients of an exact layer must be those of -log_prob"
        )


def check_evaluation(layer: OutputLayer) -> None:
    """After ``eval()``, the loss is that of ``-target_log_prob``."""
    layer = copy.deepcopy(layer).eval()
    hidden, target = random_hidden(layer, 2, 4), torch.randint(layer.num_classes, (2, 4))
    nll = -layer.target_log_prob(hidden, target).mean()
    assert torch.allclose(layer(hidden, target), nll), (
        "after eval() forward must give the mean of -target_log_prob, because validation loops "
        "report its exponential as the perplexity"
    )


def check_reductions(layer: OutputLayer) -> None:
    """The three reductions agree."""
    layer = copy.deepcopy(layer)
    hidden = random_hidden(layer, 2, 4).requires_grad_()
    target = torch.randint(layer.num_classes, (2, 4))
    target[1, 2] = layer.ignore_index
    state = copy.deepcopy(layer.state_dict())

    def run(reduction: Reduction) -> tuple[Tensor, list[Tensor]]:
        layer.load_state_dict(state)
        layer.zero_grad()
        layer.reduction = reduction
        hidden.grad = None
        torch.manual_seed(7)  # the same sample, for layers that draw one
        loss = layer(hidden, target)
        loss.sum().backward()
        gradients = [p.grad for p in (hidden, *layer.parameters()) if p.grad is not None]
        return loss.detach(), [g.to_dense() for g in gradients]

    each, of_each = run("none")
    assert each.shape == (2, 4), "reduction='none' must give one loss per target"
    assert each[1, 2] == 0, "reduction='none' must give 0 for an ignored target"
    total, of_total = run("sum")
    mean, _ = run("mean")
    assert torch.allclose(each.sum(), total), "reduction='sum' must be the sum of 'none'"
    assert torch.allclose(total / 7, mean), (
        "reduction='mean' must average over the targets that are not ignored"
    )
    for one, other in zip(of_each, of_total, strict=True):
        assert torch.allclose(one, other), "gradients of 'sum' and of the summed 'none' must agree"


def check_memory(factory: Factory, layer: OutputLayer, counts: Tensor) -> None:
    """In the middle of training, another layer takes over the parameters and buffers."""
    layer = copy.deepcopy(layer)
    other = factory(6, layer.num_classes, class_counts=counts, dtype=torch.float64)
    hidden = random_hidden(layer, 4)
    target = torch.randint(layer.num_classes, (4,))

    def train(one: OutputLayer) -> Tensor:
        one.zero_grad()
        loss = one(hidden, target)
        loss.backward()
        with torch.no_grad():
            for parameter in one.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.1 * parameter.grad.to_dense())
        return loss.detach()

    for _ in range(3):
        train(layer)
    recall(other, memory(layer))
    losses = []
    for one in (layer, other):
        torch.manual_seed(7)
        losses.append(torch.stack([train(one), train(one)]))
    assert torch.equal(*losses), (
        "everything a layer remembers between steps must be in its parameters and buffers, so that "
        "a layer given these continues alike"
    )


def check_refusals(layer: OutputLayer) -> None:
    """Bad input raises a ``ValueError`` before anything changes."""
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    hidden = random_hidden(layer, 2)
    zeros = torch.zeros(2, dtype=torch.int64)
    not_finite = hidden.clone()
    not_finite[0, 0] = torch.nan
    for what, states, target in (
        ("hidden states of another width", random_hidden(layer, 2)[:, 1:], zeros),
        ("targets of another shape", hidden, zeros[:1]),
        ("a target outside the classes", hidden, zeros + layer.num_classes),
        ("a negative target", hidden, zeros - 1),
        ("a target that is not an integer", hidden, zeros.double()),
        ("NaN in the hidden states", not_finite, zeros),
    ):
        if layer.num_classes == 1 and what.startswith("NaN"):
            continue  # one class is certain, whatever the hidden state is
        try:
            layer(states, target)
        except ValueError:
            continue
        raise AssertionError(f"{what} must raise a ValueError")
    for k in (0, layer.num_classes + 1):
        try:
            layer.topk(hidden, k)
        except ValueError:
            continue
        raise AssertionError(f"topk with k={k} must raise a ValueError")
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name]), f"refused input must change nothing: {name}"
