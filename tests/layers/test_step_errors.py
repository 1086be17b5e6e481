"""Errors in a training step say in which layer, and what would help."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import create_layer, layer_names, parse_spec
from softmax_bench.lm import clip_grad_norm, make_optimizer

V, H = 40, 16
COUNTS = torch.arange(1, V + 1)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("spec", layer_names())
def test_a_scaler_skips_a_step_that_overflows_float16(spec: str, sparse: bool) -> None:
    torch.manual_seed(0)
    layer = create_layer(spec, H, V, COUNTS, sparse=sparse)
    model = nn.ModuleList([nn.Linear(H, H), layer])
    ours = make_optimizer("sgd", model.parameters(), lr=0.1)
    optimizer: Any = ours if sparse else torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    inputs, target = torch.randn(9, H), torch.arange(9)

    def step(inputs: Tensor) -> tuple[bool, bool]:
        """Whether the loss was finite, and whether parameters moved."""
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = layer(model[0](inputs), target)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        clip_grad_norm(model.parameters(), 5.0)
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
        r"target must be class ids in int64 or int32, not torch.float32.*long\(\)": (
            hidden,
            target.float(),
        ),
        "target must be a torch.Tensor, not list": (hidden, target.tolist()),
        "hidden must be a torch.Tensor, not ndarray": (hidden.numpy(), target),
        "hidden must have shape.*computes the scores itself": (torch.randn(3, V), target),
    }
    for message, arguments in mistakes.items():
        given: Any = arguments
        with pytest.raises(SoftmaxBenchError, match=f"^{name}: {message}"):
            layer(*given)


COUNTED = [
    (spec, option.name)
    for spec in layer_names()
    for option in inspect.signature(parse_spec(spec)[0]).parameters.values()
    if option.kind is option.KEYWORD_ONLY and str(option.annotation) in ("int", "int | None")
]


@pytest.mark.parametrize(("spec", "option"), COUNTED)
@pytest.mark.parametrize("wrong", [2.5, "3", -1, True, math.nan])
def test_counts_must_be_whole_numbers(spec: str, option: str, wrong: Any) -> None:
    with pytest.raises(SoftmaxBenchError, match=f"{option} must be"):
        create_layer(spec, H, V, **{option: wrong})


@pytest.mark.parametrize("spec", ["hierarchical", "hierarchical_kary", "two_level"])
def test_a_tree_must_be_one_or_its_file(spec: str) -> None:
    with pytest.raises(SoftmaxBenchError, match=r"tree must be a .*Tree or its file, not array"):
        create_layer(spec, H, V, tree=np.zeros((V - 1, 2)))


def test_sizes_may_be_integers_of_numpy_and_counts_must_be_numbers() -> None:
    layer: Any = create_layer("sampled", H, np.int64(V), num_samples=np.int32(5))  # type: ignore[arg-type]
    assert type(layer.num_classes) is int
    wrong: Any
    for wrong in ("abc", {1: 2}, [[1], [2, 3]]):
        with pytest.raises(SoftmaxBenchError, match="class_counts must be an array of one count"):
            create_layer("sampled", H, V, wrong)


def test_the_penalty_of_self_normalized_has_one_name() -> None:
    with pytest.raises(SoftmaxBenchError, match="log_z_penalty is called penalty here"):
        create_layer("self_normalized", H, V, log_z_penalty=0.5)


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
