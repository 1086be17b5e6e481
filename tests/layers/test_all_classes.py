"""Options of the layers that score all classes, and what any layer's loss is after ``eval()``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import (
    FullSoftmax,
    OutputLayer,
    create_layer,
    layer_names,
    parse_spec,
)
from softmax_bench.layers.all_classes import AllClassesLayer
from softmax_bench.layers.options import Reduction
from softmax_bench.layers.reduced.differentiated import DifferentiatedSoftmax
from softmax_bench.testing import check_output_layer

V, H, N = 23, 6, 9
SPECS = ["full", "self_normalized(penalty=0.0)", "differentiated", "torch_linear_cross_entropy"]
MISSING = {
    "self_normalized(penalty=0.0)": ("log_z_penalty",),  # it is the penalty
    "torch_linear_cross_entropy": ("log_z_penalty", "soft_cap", "label_smoothing"),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "smoothing": {"label_smoothing": 0.2},
    "temperature": {"temperature": 1.7},
    "weights": {"class_weight": torch.rand(V, generator=torch.Generator().manual_seed(1))},
    "cap": {"soft_cap": 0.8},
    "penalty": {"log_z_penalty": 0.3},
    "all": {
        "label_smoothing": 0.1, "temperature": 0.6, "soft_cap": 1.3, "log_z_penalty": 0.2,
        "class_weight": torch.rand(V, generator=torch.Generator().manual_seed(2)),
    },
}  # fmt: skip


def layer_and_batch(spec: str, **options: Any) -> tuple[AllClassesLayer, Tensor, Tensor]:
    kind, own = parse_spec(spec)
    layer = kind(H, V, class_counts=torch.arange(V) % 7, dtype=torch.float64, **own, **options)
    assert isinstance(layer, AllClassesLayer)
    target = torch.randint(V, (N,))
    target[2] = layer.ignore_index
    return layer, torch.randn(N, H, dtype=torch.float64, requires_grad=True), target


def scores_of(layer: AllClassesLayer, hidden: Tensor) -> Tensor:
    """By the formula, from the scores of the same layer without temperature and cap."""
    temperature, cap = layer.temperature, layer.soft_cap
    layer.temperature, layer.soft_cap = 1.0, 0.0
    if isinstance(layer, DifferentiatedSoftmax):
        scores = layer.order.by_class(layer._scores(hidden))
    else:
        assert isinstance(layer, FullSoftmax)
        scores = F.linear(hidden, layer.weight, layer.bias)
    layer.temperature, layer.soft_cap = temperature, cap
    return (cap * torch.tanh(scores / cap) if cap else scores) / temperature


def gradients(loss: Tensor, layer: OutputLayer, hidden: Tensor) -> list[Tensor]:
    leaves = [hidden, *layer.parameters()]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_loss_is_that_of_torch(spec: str, options: dict[str, Any], reduction: str) -> None:
    options = {k: v for k, v in options.items() if k not in MISSING.get(spec, ())}
    layer, hidden, target = layer_and_batch(spec, **options, reduction=reduction)
    ours = layer(hidden, target)
    scores = scores_of(layer, hidden)
    class_weight = None if layer.class_weight is None else layer.class_weight.double()
    exact = F.cross_entropy(
        scores, target, class_weight, label_smoothing=layer.label_smoothing, reduction=reduction
    )
    kept = target != layer.ignore_index
    penalty = layer.log_z_penalty * scores.logsumexp(1).square() * kept
    if reduction == "mean":
        counted = kept if class_weight is None else class_weight[target.clamp(min=0)] * kept
        penalty = penalty.sum() / counted.sum()
    exact = exact + penalty
    torch.testing.assert_close(ours, exact)
    weight = torch.randn_like(ours)
    for one, other in zip(
        gradients((ours * weight).sum(), layer, hidden),
        gradients((exact * weight).sum(), layer, hidden),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("spec", ["full", "differentiated"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_the_distribution_has_temperature_and_cap(spec: str, options: dict[str, Any]) -> None:
    check_output_layer(
        lambda width, classes, **common: parse_spec(spec)[0](
            width, classes, **{**options, **common, "class_weight": None}
        ),
        sizes=(3, 17),
    )
    layer, hidden, _ = layer_and_batch(spec, **options)
    torch.testing.assert_close(layer.log_prob(hidden), scores_of(layer, hidden).log_softmax(1))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}, {"soft_cap": 1.1}], ids=str)
def test_statistics_of_tokens(spec: str, options: dict[str, Any]) -> None:
    options = {k: v for k, v in options.items() if k not in MISSING.get(spec, ())}
    layer, hidden, target = layer_and_batch(spec, **options)
    found = layer.token_statistics(hidden, target)
    scores = scores_of(layer, hidden)
    log_prob, kept = scores.log_softmax(1), target != layer.ignore_index
    exact = (
        log_prob.gather(1, target.clamp(min=0).unsqueeze(1)).squeeze(1) * kept,
        scores.logsumexp(1),
        -(log_prob.exp() * log_prob).sum(1),
    )
    weights = torch.randn(3, N, dtype=torch.float64)
    for ours, wanted in zip(found[:3], exact, strict=True):
        torch.testing.assert_close(ours, wanted)
    assert found.correct.tolist() == ((scores.argmax(1) == target) & kept).tolist()
    for one, other in zip(
        gradients(sum(w @ x for w, x in zip(weights, found[:3], strict=True)), layer, hidden),
        gradients(sum(w @ x for w, x in zip(weights, exact, strict=True)), layer, hidden),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_options_that_cannot_be_are_refused() -> None:
    for option, wrong in (
        ("temperature", 0.0), ("soft_cap", -1.0), ("label_smoothing", 1.0),
        ("log_z_penalty", -0.1), ("class_weight", torch.ones(V + 1)),
        ("class_weight", -torch.ones(V)),
    ):  # fmt: skip
        with pytest.raises(SoftmaxBenchError, match=option):
            layer_and_batch("full", **{option: wrong})
    for spec in layer_names():
        kind = parse_spec(spec)[0]
        if not issubclass(kind, AllClassesLayer):
            with pytest.raises(TypeError, match="scores of all classes"):
                kind(H, V, label_smoothing=0.1)  # type: ignore[call-arg]


@pytest.mark.parametrize("spec", layer_names())
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_after_eval_the_loss_is_the_negative_log_likelihood(
    spec: str, reduction: Reduction
) -> None:
    kind, options = parse_spec(spec)
    if issubclass(kind, AllClassesLayer):
        options["class_weight"] = torch.rand(V)
    layer = kind(H, V, dtype=torch.float64, reduction=reduction, **options).eval()
    hidden, target = torch.randn(3, 4, H, dtype=torch.float64), torch.randint(V, (3, 4))
    target[1, 1] = layer.ignore_index
    weight = torch.randn(3, 4, dtype=torch.float64)
    nll = -layer.target_log_prob(hidden, target)
    for of_token in (torch.ones_like(weight), weight):
        exact = nll * of_token
        exact = exact if reduction == "none" else exact.sum()
        exact = exact / 11 if reduction == "mean" else exact
        torch.testing.assert_close(layer(hidden, target, of_token), exact)
    torch.testing.assert_close(
        nll, -layer.log_prob(hidden).gather(2, target.clamp(min=0).unsqueeze(2)).squeeze(2)
        * (target != layer.ignore_index),
    )  # fmt: skip


@pytest.mark.parametrize("spec", layer_names())
def test_weights_of_tokens_weight_their_losses(spec: str) -> None:
    layer = create_layer(spec, H, V, dtype=torch.float64)
    hidden, target = torch.randn(N, H, dtype=torch.float64), torch.randint(V, (N,))
    weight = torch.randn(N, dtype=torch.float64)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    torch.manual_seed(3)
    mean = layer(hidden, target, weight)
    layer.load_state_dict(state)
    layer.reduction = "none"
    torch.manual_seed(3)
    each = layer(hidden, target, weight)
    layer.load_state_dict(state)
    torch.manual_seed(3)
    torch.testing.assert_close(each, layer(hidden, target) * weight)
    torch.testing.assert_close(mean, each.mean())
    with pytest.raises(SoftmaxBenchError, match="weight must have the shape"):
        layer(hidden, target, weight[:2])


@pytest.mark.parametrize("spec", layer_names())
def test_evaluation_under_autocast_is_the_one_outside_of_it(spec: str) -> None:
    layer = create_layer(spec, 32, 200, torch.randint(0, 50, (200,))).eval()
    hidden, target = torch.randn(5, 32), torch.randint(200, (5,))

    def everything() -> list[Tensor]:
        torch.manual_seed(0)
        claim = layer.unnormalized_target_log_prob(hidden, target)
        found = [layer.log_prob(hidden), layer.target_log_prob(hidden, target)]
        found += [*layer.topk(hidden, 3), layer.sample(hidden), layer(hidden, target)]
        return found if claim is None else [*found, claim]

    exact = everything()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = everything()
    for one, other in zip(exact, mixed, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
