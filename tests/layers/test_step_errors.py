"""Errors in a training step say in which layer, and what would help."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import create_layer, layer_names

V, H = 40, 16
COUNTS = torch.arange(1, V + 1)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("spec", layer_names())
def test_a_scaler_skips_a_step_that_overflows_float16(spec: str, sparse: bool) -> None:
    torch.manual_seed(0)
    layer = create_layer(spec, H, V, COUNTS, sparse=sparse)
    model = nn.ModuleList([nn.Linear(H, H), layer])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    inputs, target = torch.randn(9, H), torch.arange(9)

    def step(inputs: Tensor) -> tuple[bool, bool]:
        """Whether the loss was finite, and whether parameters moved."""
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = layer(model[0](inputs), target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        same = all(map(torch.equal, before, model.parameters()))
        return bool(loss.isfinite()), not same

    assert step(inputs * 1e6) == (False, False)  # 65,504 is the greatest number of float16
    assert scaler.get_scale() == 2.0**11
    assert step(inputs) == (True, True)
    assert step(inputs * 1e6) == (False, False)


@pytest.mark.parametrize("spec", layer_names())
def test_other_infinite_hidden_states_are_refused(spec: str) -> None:
    layer = create_layer(spec, H, V)
    with pytest.raises(
        SoftmaxBenchError, match=f"{type(layer).__name__}: 1 of 3 hidden states are NaN"
    ):
        layer(torch.full((3, H), 1.0).index_fill(0, torch.tensor([1]), torch.inf), torch.arange(3))


@pytest.mark.parametrize("spec", layer_names())
def test_mistakes_are_told_with_the_name_of_the_layer(spec: str) -> None:
    layer, hidden = create_layer(spec, H, V), torch.randn(3, H)
    target, name = torch.arange(3), type(layer).__name__
    mistakes = {
        "target must have the shape": (hidden, target[:2]),
        f"target {V} is not a class.*ignore_index": (hidden, target + V - 2),
        "hidden must have shape": (hidden[:, 1:], target),
        "hidden is on meta, but the layer's parameters are on cpu": (hidden.to("meta"), target),
        "target is on meta": (hidden, target.to("meta")),
        "weight must have the shape": (hidden, target, torch.ones(2)),
    }
    for message, arguments in mistakes.items():
        with pytest.raises(SoftmaxBenchError, match=f"^{name}: {message}"):
            layer(*arguments)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("full", "try save_memory=True, or fewer tokens per step"),
        ("nce", "try a smaller num_samples, or sparse=True (gradients of the touched rows only)"),
        ("nce(sparse=True)", "try a smaller num_samples, or fewer tokens per step"),
        ("hierarchical", "try sparse=True (gradients of the touched rows only), or fewer tokens"),
        ("adaptive", "try fewer tokens per step"),
    ],
)
def test_a_step_that_does_not_fit_says_what_needs_less(
    spec: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = create_layer(spec, H, V)

    def too_much(*operands: Tensor) -> Tensor:
        return torch.empty(2**60)

    monkeypatch.setattr(layer, "_weighted_loss", too_much)
    with pytest.raises(RuntimeError, match="memory") as error:
        layer(torch.randn(2, 3, H), torch.zeros(2, 3).long())
    (note,) = error.value.__notes__
    assert note.startswith(f"{type(layer).__name__} ran out of memory in a step on 6 tokens and 40")
    assert hint in note
