"""Primitives, and every layer's step on the kernels, against the plain algorithms in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu import primitives
from benchmarks.gpu.case import Case, Figures
from softmax_bench.layers import OutputLayer, create_layer, layer_names
from softmax_bench.lm import clip_grad_norm, make_optimizer
from softmax_bench.measure import zipf_counts

TOKENS, WIDTH, CLASSES = 300, 48, 700
DRAWS_OF_ITS_OWN = {"partial_fc", "kernel", "rff", "midx"}
"""Layers that draw differently on a GPU, or by probabilities that rounding changes."""
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MODULES = ("ops.dispatch", "ops.all_classes", "lm.optimizers")
"""Modules that choose an implementation by device."""


def cases(device: torch.device, *, small: bool) -> Iterator[Case]:
    """One case for each primitive and dtype, and for each layer, dtype and rule."""
    yield from primitives.cases(device, small=small)
    specs = [*layer_names(), "nce(shared=False, num_samples=20)", "sampled(replacement=True)"]
    for spec in specs[::6] if small else specs:
        for kind in TYPES:
            for rule in ("adagrad", "adam") if kind == "float32" else ("sgd",):
                yield Case(f"{spec} {kind} {rule}", partial(_errors, spec, kind, rule, device))


def _errors(spec: str, kind: str, rule: str, device: torch.device) -> Figures:
    torch.manual_seed(0)
    exact = create_layer(
        spec, WIDTH, CLASSES, zipf_counts(CLASSES), sparse=True, dtype=torch.float64
    ).to(device)
    ours = copy.deepcopy(exact).to(TYPES[kind])
    hidden = torch.randn(TOKENS, WIDTH, dtype=torch.float64, device=device).tanh()
    target = torch.randint(CLASSES, (TOKENS,), device=device)
    target[::17] = -100
    seen = _step(ours, rule, hidden.to(TYPES[kind]), target)
    with ExitStack() as plain:
        for module in MODULES:
            plain.enter_context(mock.patch(f"softmax_bench.{module}.on_cuda", return_value=False))
        wanted = _step(exact, rule, hidden, target)
    names = ("loss", "hidden gradient", "parameters")
    errors = {f"error of {n}": _error(a, b) for n, a, b in zip(names, seen, wanted, strict=True)}
    allowed = 1e-3 if kind == "float32" else 5e-2
    drawn = spec.split("(")[0] in DRAWS_OF_ITS_OWN
    fine = all(map(math.isfinite, errors.values()))
    if not drawn:
        fine = fine and max(errors["error of loss"], errors["error of hidden gradient"]) < allowed
    return {"layer": spec, "type": kind, "rule": rule, **errors, "right": fine}


def _step(layer: OutputLayer, rule: str, hidden: Tensor, target: Tensor) -> list[Tensor]:
    optimizer = make_optimizer(rule, layer.parameters(), 0.01)
    torch.manual_seed(1)
    leaf = hidden.clone().requires_grad_()
    loss = layer(leaf, target)
    loss.backward()
    clip_grad_norm(layer.parameters(), 0.5)
    optimizer.step()
    assert leaf.grad is not None
    parameters = torch.cat([p.detach().double().flatten() for p in layer.parameters()])
    return [loss.detach().double(), leaf.grad.double(), parameters]


def _error(seen: Tensor, wanted: Tensor) -> float:
    """Relative error in the 2-norm."""
    return float((seen - wanted).norm() / wanted.norm().clamp(min=1e-30))
