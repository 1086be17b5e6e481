"""Check that an output layer, from this package or another, keeps the contract.

In a test, ``check_output_layer(MyLayer)`` suffices. For a layer with its own options, write

``check_output_layer(lambda width, classes, **common: MyLayer(width, classes, rank=3, **common))``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from softmax_bench.classes.draws import watching_draws
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.base import OutputLayer
from softmax_bench.layers.options import Reduction
from softmax_bench.layers.plugins import check_description
from softmax_bench.lm.checkpoint import memory, recall

Factory = Callable[..., OutputLayer]
"""Called as ``factory(in_features, num_classes, class_counts=..., dtype=...)``."""


def check_output_layer(
    factory: Factory,
    *,
    sizes: tuple[int, ...] = (1, 2, 3, 17, 300),
    every_gradient: bool = True,
) -> None:
    """Check that a layer keeps the whole contract, at each number of classes in ``sizes``.

    The checks run in float64, on unordered counts with zeros and ties. The layer describes itself.
    ``log_prob`` sums to 1, and ``target_log_prob``, ``topk`` and ``sample`` agree with it. The loss
    is finite, ignored targets give neither loss nor gradient, and the three reductions agree. An
    ``exact`` layer has the loss and gradients of ``-log_prob`` under autograd, and after ``eval()``
    every layer has that loss. Gradients are row-sparse and coalesced where
    ``row_sparse_parameters`` says so. ``flops`` and ``rows_touched`` return numbers. A copy, a
    loaded state dict and ``float()`` give the same distribution. Bad input raises a ``ValueError``
    (``SoftmaxBenchError`` is one) before anything changes. An empty batch works.

    Args:
        factory: Creates the layer.
        sizes: Numbers of classes.
        every_gradient: Whether every parameter must get a gradient in every step, as data-parallel
            training requires.

    Raises:
        AssertionError: The layer breaks the contract; the message says where.
    """
    for num_classes in sizes:
        counts = torch.randint(
            0, 50, (num_classes,)
        ).double()  # counts with zeros and ties, unordered
        layer = factory(6, num_classes, class_counts=counts, dtype=torch.float64)
        _check_description(layer)
        _check_distribution(layer)
        _check_search(layer)
        _check_loss(layer, every_gradient=every_gradient)
        _check_likelihood(layer)
        _check_evaluation(layer)
        _check_reductions(layer)
        _check_state(factory, layer, counts)
        _check_memory(factory, layer, counts)
        _check_refusals(layer)
    _check_empty(factory)


def _hidden(layer: OutputLayer, *shape: int) -> Tensor:
    return torch.randn(*shape, layer.in_features, dtype=torch.float64)


def _check_description(layer: OutputLayer) -> None:
    try:
        check_description(type(layer))
    except SoftmaxBenchError as error:
        raise AssertionError(str(error)) from error
    claim = layer.unnormalized_target_log_prob(_hidden(layer, 1), torch.zeros(1, dtype=torch.int64))
    by_training = layer.normalised == "by training"
    assert (claim is not None) == by_training, (
        "layers normalised by training, and only they, must have unnormalized_target_log_prob"
    )


def _check_distribution(layer: OutputLayer) -> None:
    hidden = _hidden(layer, 2, 3)
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


def _check_search(layer: OutputLayer) -> None:
    hidden = _hidden(layer, 4)
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


def _check_loss(layer: OutputLayer, *, every_gradient: bool) -> None:
    hidden = _hidden(layer, 2, 4).requires_grad_()
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


def _check_likelihood(layer: OutputLayer) -> None:
    if not layer.exact or not getattr(layer, "plain", True):
        return
    hidden = _hidden(layer, 2, 4).requires_grad_()
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
    with_all = (
        plain + 0 * hidden.sum()
    )  # with one class, which is certain, nothing depends on anything
    for ours, wanted in zip(gradients(loss), gradients(with_all), strict=True):
        assert torch.allclose(ours, wanted), (
            "gradients of an exact layer must be those of -log_prob"
        )


def _check_evaluation(layer: OutputLayer) -> None:
    layer = copy.deepcopy(layer).eval()
    hidden, target = _hidden(layer, 2, 4), torch.randint(layer.num_classes, (2, 4))
    nll = -layer.target_log_prob(hidden, target).mean()
    assert torch.allclose(layer(hidden, target), nll), (
        "after eval() forward must give the mean of -target_log_prob, because validation loops "
        "report its exponential as the perplexity"
    )


def _check_reductions(layer: OutputLayer) -> None:
    layer = copy.deepcopy(layer)
    hidden = _hidden(layer, 2, 4).requires_grad_()
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


def _check_state(factory: Factory, layer: OutputLayer, counts: Tensor) -> None:
    hidden = _hidden(layer, 3)
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


def _check_memory(factory: Factory, layer: OutputLayer, counts: Tensor) -> None:
    """In the middle of training, another layer takes over the parameters and buffers."""
    layer = copy.deepcopy(layer)
    other = factory(6, layer.num_classes, class_counts=counts, dtype=torch.float64)
    hidden = _hidden(layer, 4)
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


def _check_refusals(layer: OutputLayer) -> None:
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    hidden = _hidden(layer, 2)
    zeros = torch.zeros(2, dtype=torch.int64)
    not_finite = hidden.clone()
    not_finite[0, 0] = torch.nan
    for what, states, target in (
        ("hidden states of another width", _hidden(layer, 2)[:, 1:], zeros),
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


def _check_empty(factory: Factory) -> None:
    layer = factory(6, 5, class_counts=torch.ones(5), dtype=torch.float64)
    hidden, target = _hidden(layer, 0).requires_grad_(), torch.zeros(0, dtype=torch.int64)
    loss = layer(hidden, target)
    loss.backward()
    assert float(loss.detach()) == 0.0, "an empty batch must give loss 0"
    assert layer.log_prob(hidden).shape == (0, 5), "log_prob of an empty batch"
    assert layer.target_log_prob(hidden, target).shape == (0,), "target_log_prob of an empty batch"
    assert layer.topk(hidden, 2)[0].shape == (0, 2), "topk of an empty batch"
    assert layer.sample(hidden).shape == (0,), "sample of an empty batch"
