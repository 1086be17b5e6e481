"""What other people's training loops do with a layer: padding, any optimiser, penalties."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from softmax_bench.layers import create_layer, layer_names
from softmax_bench.layers.base import OutputLayer
from softmax_bench.ops import release_workspace

COUNTS = torch.arange(40)


def _loss(layer: OutputLayer, hidden: Tensor, target: Tensor) -> Tensor:
    torch.manual_seed(1)  # the same draws each time
    loss: Tensor = layer(hidden, target).sum()
    return loss


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("spec", [*layer_names(), "nce(num_samples=3, shared=False)"])
def test_gradients_are_dense_unless_asked_otherwise(spec: str, reduction: str) -> None:
    torch.manual_seed(0)
    dense = create_layer(spec, 4, 40, COUNTS, dtype=torch.float64, reduction=reduction)
    sparse = create_layer(
        spec, 4, 40, COUNTS, dtype=torch.float64, reduction=reduction, sparse=True
    )
    sparse.load_state_dict(dense.state_dict())
    assert not list(dense.row_sparse_parameters())
    hidden, target = torch.randn(6, 4, dtype=torch.float64), torch.randint(40, (6,))
    for layer in (dense, sparse):
        _loss(layer, hidden, target).backward()
    for ours, wanted in zip(dense.parameters(), sparse.parameters(), strict=True):
        if wanted.grad is not None:
            assert ours.grad is not None
            assert not ours.grad.is_sparse
            torch.testing.assert_close(ours.grad, wanted.grad.to_dense())


@pytest.mark.parametrize("spec", layer_names())
def test_a_copy_trains_with_any_optimizer(spec: str) -> None:
    layer = copy.deepcopy(create_layer(spec, 4, 40, COUNTS))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.05, weight_decay=0.1)
    hidden, target = torch.randn(6, 4), torch.randint(40, (6,))
    before = layer.target_log_prob(hidden, target).mean()
    for _ in range(40):
        optimizer.zero_grad()
        layer(hidden, target).backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
    assert layer.target_log_prob(hidden, target).mean() > before


@pytest.mark.parametrize("spec", layer_names())
def test_training_goes_on_after_an_evaluation_in_inference_mode(spec: str) -> None:
    release_workspace()
    layer = create_layer(spec, 4, 40, COUNTS)
    hidden, target = torch.randn(6, 4), torch.randint(40, (6,))
    with torch.inference_mode():
        layer.eval()
        layer(hidden, target)
        layer.target_log_prob(hidden, target)
        layer.topk(hidden, 3)
        layer.sample(hidden)
    layer.train()
    for _ in range(2):
        layer(hidden, target).backward()


MANY = 2**18  # classes, whose scores are not held at once
SIZES = [(spec, 9) for spec in [*layer_names(), "nce(num_samples=3, shared=False)"]]


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(("spec", "size"), [*SIZES, ("full", MANY), ("adaptive", MANY)])
def test_second_derivatives_are_right_or_refused(spec: str, size: int, reduction: str) -> None:
    torch.manual_seed(0)
    layer = create_layer(
        spec, 3, size, torch.arange(size), dtype=torch.float64, reduction=reduction
    )
    hidden = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randint(size, (5,))

    def penalty() -> Tensor:
        """The squared norm of the gradient."""
        (gradient,) = torch.autograd.grad(_loss(layer, hidden, target), hidden, create_graph=True)
        return gradient.square().sum()

    loss = penalty() + hidden.square().sum()  # of which one part can be differentiated
    try:
        (second,) = torch.autograd.grad(loss, hidden)
    except RuntimeError as error:
        refused = str(error)
        assert refused.startswith(f"{type(layer).__name__} has no second derivative")
        return
    second = second - 2 * hidden.detach()
    direction = torch.randn_like(hidden)
    changed = []
    for step in (-1e-5, 1e-5):
        with torch.no_grad():
            hidden += step * direction
        changed.append(float(penalty().detach()))
        with torch.no_grad():
            hidden -= step * direction
    slope = (changed[1] - changed[0]) / 2e-5
    torch.testing.assert_close(float((second * direction).sum()), slope, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("spec", layer_names())
def test_log_prob_has_a_second_derivative_as_the_refusal_says(spec: str) -> None:
    layer = create_layer(spec, 3, 9, torch.arange(9), dtype=torch.float64)
    hidden = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda h: layer.log_prob(h)[:, 4], hidden)


@pytest.mark.parametrize("spec", layer_names())
def test_a_second_backward_is_right_or_refused_by_name(spec: str) -> None:
    layer = create_layer(spec, 3, 9, torch.arange(9), dtype=torch.float64)
    loss = layer(torch.randn(5, 3, dtype=torch.float64), torch.arange(5))
    loss.backward(retain_graph=True)
    first = [p.grad.clone() for p in layer.parameters() if p.grad is not None]
    layer.zero_grad()
    try:
        loss.backward()
    except RuntimeError as error:
        refused = str(error)
        of_torch = "linear_cross_entropy chunked backward called twice"
        assert refused.startswith((f"{type(layer).__name__} computed the gradients", of_torch))
        return
    second = [p.grad for p in layer.parameters() if p.grad is not None]
    assert all(map(torch.equal, first, second))


SEEING = ["in_batch", "partial_fc", "nce(log_z='estimated')"]
"""Layers in which tokens of a batch see each other."""


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("spec", "by_weight"),
    [*((spec, False) for spec in layer_names()), *((spec, True) for spec in SEEING)],
)
def test_an_ignored_target_is_as_if_it_were_not_there(
    spec: str, reduction: str, by_weight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_weight and reduction != "none":  # as where a device is not to be asked for a number
        monkeypatch.setattr(OutputLayer, "_leaves_out", lambda self, kept: False)
    torch.manual_seed(0)
    made = create_layer(spec, 4, 40, COUNTS, dtype=torch.float64, reduction=reduction)
    kept = torch.tensor([[True, False, False, True], [False, False, True, False]])
    hidden, target = torch.randn(2, 4, 4, dtype=torch.float64), torch.randint(1, 40, (2, 4))
    hidden[1, 3] = 1e3 if by_weight else torch.nan  # of a token that nobody computed

    def step(hidden: Tensor, target: Tensor) -> list[Tensor]:
        layer = copy.deepcopy(made)
        hidden = hidden.clone().requires_grad_()
        torch.manual_seed(1)
        loss: Tensor = layer(hidden, target)
        loss.sum().backward()
        loss = loss[target != -100] if loss.dim() else loss
        assert hidden.grad is not None
        assert not hidden.grad[target == -100].any()
        seen: list[Tensor] = [loss, hidden.grad[target != -100], *layer.buffers()]
        seen += [p.grad for p in layer.parameters() if p.grad is not None]
        return [x.detach() for x in seen]

    padded = step(hidden, target.masked_fill(~kept, -100))
    for ours, wanted in zip(padded, step(hidden[kept], target[kept]), strict=True):
        torch.testing.assert_close(ours, wanted)
