"""Every primitive on the kernels against its plain formula, which a CPU computes in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.gpu.case import Case, Figures
from softmax_bench import ops
from softmax_bench.ops import reference

TOKENS, WIDTH, CLASSES, BLOCK = 150, 72, 600, 30
TYPES = {"float32": (torch.float32, 1e-3), "bfloat16": (torch.bfloat16, 5e-2)}
"""Each dtype, and the largest allowed error relative to the norm."""


class _Fixed:
    """What the primitives need besides hidden states, rows and offsets."""

    def __init__(self, device: torch.device | str, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(1)
        draw = partial(torch.randint, generator=generator)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator).to(dtype)

        self.target = draw(CLASSES, (TOKENS,)).to(device)
        self.coefficient = uniform(TOKENS).to(device)
        self.class_weight = uniform(CLASSES).to(device)
        self.rows = torch.arange(0, CLASSES, 3).to(device)
        self.offset, self.own_offset = uniform(CLASSES // 3).to(device), uniform(TOKENS).to(device)
        self.count = draw(1, 4, (CLASSES // 3,)).to(dtype).to(device)
        self.pairs = draw(CLASSES, (TOKENS, 5)).to(device)
        self.pair_offset = uniform(TOKENS, 5).to(device)
        self.group = draw(3, (TOKENS,)).to(device)
        self.projection = (uniform(WIDTH // 4, WIDTH) / 4).to(device)


def _options(fixed: _Fixed) -> dict[str, object]:
    return {
        "penalty": 0.1, "label_smoothing": 0.1, "soft_cap": 5.0, "class_weight": fixed.class_weight
    }  # fmt: skip


def _in_blocks(w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks of rows, whose sparse gradient torch could not reshape."""
    blocks = w.view(-1, BLOCK, WIDTH), b.view(-1, BLOCK)
    return ops.dense_gradient(blocks[0]), ops.dense_gradient(blocks[1])


def _groups(of: ModuleType, h: Tensor, w: Tensor, b: Tensor, x: _Fixed) -> Tensor:
    group = x.group if of is reference else ops.group_tokens(x.group, 3)
    rows = w[:, : WIDTH // 4].contiguous()
    losses: Tensor = of.group_nll(h, x.projection.to(h.dtype), rows, b, x.target, group, 1)
    return losses


_PRIMITIVES: dict[str, Callable[[ModuleType, Tensor, Tensor, Tensor, _Fixed], Tensor]] = {
    "linear_cross_entropy": lambda of, h, w, b, x: of.linear_cross_entropy(
        h, w, b, x.target, x.coefficient
    ),
    "linear_cross_entropy, all options": lambda of, h, w, b, x: of.linear_cross_entropy(
        h, w, b, x.target, x.coefficient, **_options(x)
    ),
    "token_sums": lambda of, h, w, b, x: torch.stack(
        of.token_sums(h, w, b, x.target, ops.Terms(5.0, None, mean=True, expected=True))[:4]
    ),
    "subset_cross_entropy": lambda of, h, w, b, x: of.subset_cross_entropy(
        h, w, b, x.target, x.coefficient, x.rows, x.offset, x.own_offset
    ),
    "subset_logistic": lambda of, h, w, b, x: of.subset_logistic(
        h, w, b, b[0].detach(), x.target, x.coefficient, x.rows, x.offset, x.count, x.own_offset
    ),
    "subset_blackout": lambda of, h, w, b, x: of.subset_blackout(
        h, w, b, x.target, x.coefficient, x.rows, x.offset, x.count, x.own_offset
    ),
    "subset_scores": lambda of, h, w, b, x: of.subset_scores(h, w, b, x.target, x.rows)[1],
    "pair_scores": lambda of, h, w, b, x: of.pair_scores(
        h, w, b, torch.arange(TOKENS + 1, device=h.device) * 5, x.pairs.view(-1)
    ),
    "pair_logistic": lambda of, h, w, b, x: of.pair_logistic(h, w, b, x.pairs, x.pair_offset),
    "block_scores": lambda of, h, w, b, x: of.block_scores(h, *_in_blocks(w, b), x.target // BLOCK),
    "block_cross_entropy": lambda of, h, w, b, x: of.block_cross_entropy(
        h, *_in_blocks(w, b), x.target, x.coefficient, CLASSES
    ),
    "group_nll": _groups,
}


def cases(device: torch.device, *, small: bool) -> Iterator[Case]:
    """One case for each primitive and dtype; paths are checked by the layers."""
    for name in list(_PRIMITIVES)[:: 4 if small else 1]:
        for kind in TYPES:
            yield Case(f"{name} {kind}", partial(_errors, name, kind, device))


def _errors(name: str, kind: str, device: torch.device) -> Figures:
    dtype, allowed = TYPES[kind]
    torch.manual_seed(0)
    drawn = (
        torch.randn(TOKENS, WIDTH),
        torch.randn(CLASSES, WIDTH) / WIDTH**0.5,
        torch.randn(CLASSES),
    )
    results = []
    for of, to, where in ((ops, dtype, device), (reference, torch.float64, "cpu")):
        h, w, b = leaves = [x.to(dtype).to(where, to).detach().requires_grad_() for x in drawn]
        value = _PRIMITIVES[name](of, h, w, b, _Fixed(where, ops.accumulator(to)))
        value.sum().backward()
        gradients = [torch.zeros_like(x) if x.grad is None else x.grad.to_dense() for x in leaves]
        results.append([x.detach().double().cpu() for x in (value, *gradients)])
    parts = ("value", "hidden gradient", "weight gradient", "bias gradient")
    errors = {
        f"error of {part}": float((ours - exact).norm() / exact.norm().clamp(min=1e-30))
        for part, ours, exact in zip(parts, *results, strict=True)
    }
    return {"layer": name, "type": kind, **errors, "right": max(errors.values()) < allowed}
