"""Pairs, paths, shared samples and blocks on the kernels, against plain formulas in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from softmax_bench import ops
from softmax_bench.classes.huffman import huffman_tree
from softmax_bench.classes.tree import ABSENT, Tree
from softmax_bench.ops import reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.usefixtures("_as_on_cuda"),
    # Triton's interpreter computes masked lanes too, and numpy remarks on it.
    pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning"),
]

TOLERANCE = {
    torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 5e-2,
}  # fmt: skip
dtypes = st.sampled_from(list(TOLERANCE))
tokens = st.integers(0, 6)
classes = st.sampled_from([1, 2, 7, 40])
widths = st.sampled_from([1, 3, 16, 33])
seeds = st.integers(0, 1000)
options = {"dtype": dtypes, "biased": st.booleans(), "apart": st.booleans(), "seed": seeds}
# The interpreter would take minutes to look for a smaller example.
few = settings(max_examples=15, phases=[Phase.explicit, Phase.generate])


def assert_near(
    ours: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    differentiable: list[Tensor | None],
    rest: list[Tensor],
    dtype: torch.dtype,
    *,
    apart: bool = False,
    tolerance: float | None = None,
) -> None:
    """Values and gradients, in ``dtype`` and in float64 of the same numbers, by their norms.

    Args:
        ours: Run on the kernels.
        plain: Run on the CPU.
        differentiable: Operands that get gradients.
        rest: The others.
        dtype: Of the operands.
        apart: Whether the operands' numbers lie apart in memory.
        tolerance: Of the error, relative to the norm or to 1; the type's if None.
    """
    rounded = [None if x is None else x.to(dtype) for x in differentiable]
    results = []
    for function, kind, device in ((ours, dtype, DEVICE), (plain, torch.float64, "cpu")):
        given = [None if x is None else x.to(device, kind) for x in rounded]
        others = [x.to(device) for x in rest]
        if apart and function is ours:
            given = [None if x is None else torch.stack([x, x], -1)[..., 0] for x in given]
            others = [torch.stack([x, x], -1)[..., 0] for x in others]
        leaves = [None if x is None else x.detach().requires_grad_() for x in given]
        value = function(*leaves, *others)
        torch.manual_seed(1)
        (value * torch.randn(value.shape, dtype=torch.float64).to(value)).sum().backward()
        present = [leaf for leaf in leaves if leaf is not None]
        gradients = [torch.zeros_like(x) if x.grad is None else x.grad.to_dense() for x in present]
        results.append([x.double().cpu() for x in (value.detach(), *gradients)])
    bound = TOLERANCE[dtype] if tolerance is None else tolerance
    for seen, exact in zip(*results, strict=True):
        assert seen.shape == exact.shape
        assert float((seen - exact).norm()) <= bound * max(1.0, float(exact.norm()))


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@few
@given(tokens=tokens, classes=classes, width=widths, most=st.integers(0, 4), **options)
def test_pairs(
    tokens: int, classes: int, width: int, most: int, dtype: torch.dtype, biased: bool,
    apart: bool, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    lengths = torch.randint(most + 1, (tokens,))
    starts = F.pad(lengths.cumsum(0), (1, 0))
    rows = torch.randint(classes, (int(starts[-1]),))
    operands = [normal(tokens, width), normal(classes, width), normal(classes) if biased else None]
    assert_near(
        ops.pair_scores, reference.pair_scores, operands, [starts, rows], dtype, apart=apart
    )


@few
@given(tokens=tokens, classes=classes, width=widths, noise=st.integers(0, 4), **options)
def test_pairs_with_a_loss(
    tokens: int, classes: int, width: int, noise: int, dtype: torch.dtype, biased: bool,
    apart: bool, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    rows, offset = torch.randint(classes, (tokens, noise + 1)), normal(tokens, noise + 1)
    operands = [normal(tokens, width), normal(classes, width), normal(classes) if biased else None]

    def moved(*operands: Tensor, of: ModuleType) -> Tensor:
        *leaves, offset, rows = operands
        losses: Tensor = of.pair_logistic(*leaves, rows, offset, 2.5)
        return losses

    assert_near(
        partial(moved, of=ops),
        partial(moved, of=reference),
        [*operands, offset],
        [rows],
        dtype,
        apart=apart,
    )


def path_table(tree: Tree, rows_per_node: int) -> ops.PathTable:
    paths = tree.paths()
    starts, nodes, codes, children = (
        torch.from_numpy(x).to(DEVICE)
        for x in (paths.starts, paths.nodes, paths.codes, tree.children)
    )
    level_sizes = tuple(map(len, tree.levels))
    return ops.PathTable(starts, nodes, codes, children, rows_per_node, level_sizes)


def plain_path_losses(
    tree: Tree, arity: int, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor
) -> Tensor:
    """From the leaf of each token up to the root, one decision after another."""
    losses = []
    for h, wanted in zip(hidden, target.tolist(), strict=True):
        loss, child = 0 * h.sum() + 0 * weight.sum(), -wanted - 1
        while len(tree.children) and child != 0:
            (node,), (side,) = np.nonzero(tree.children == child)
            rows = slice(node * arity, (node + 1) * arity)
            scores = weight[rows] @ h + (0 if bias is None else bias[rows])
            if arity == 1:
                loss = loss - F.logsigmoid(scores[0] if side else -scores[0])
            else:
                absent = torch.from_numpy(tree.children[node] == ABSENT)
                loss = loss - scores.masked_fill(absent, -math.inf).log_softmax(0)[side]
            child = node
        losses.append(loss)
    return torch.stack(losses) if losses else hidden.sum(1)


@few
@given(
    tokens=tokens,
    tree=st.sampled_from([(1, 2), (2, 2), (9, 2), (40, 2), (3, 4), (40, 3), (40, 7)]),
    width=widths,
    **options,
)
def test_paths(
    tokens: int, tree: tuple[int, int], width: int, dtype: torch.dtype, biased: bool, apart: bool,
    seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    (classes, arity), sides = tree, (1 if tree[1] == 2 else tree[1])
    made = huffman_tree(torch.randint(1, 100, (classes,)).numpy(), arity)
    rows = len(made.children) * sides
    operands = [normal(tokens, width), normal(rows, width), normal(rows) if biased else None]
    table = path_table(made, sides)
    assert_near(
        lambda h, w, b, target: ops.path_losses(h, w, b, table, target),
        partial(plain_path_losses, made, sides),
        operands,
        [torch.randint(classes, (tokens,))],
        dtype,
        apart=apart,
    )


@few
@given(
    tokens=tokens,
    classes=classes,
    width=widths,
    samples=st.sampled_from([0, 1, 5, 33]),
    form=st.sampled_from([{}, {"keep_hits": True}, {"penalty": 0.4}]),
    at_once=st.sampled_from([1, 70, 2**26]),
    **options,
)
def test_shared_samples(
    tokens: int, classes: int, width: int, samples: int, form: dict[str, float], at_once: int,
    dtype: torch.dtype, biased: bool, apart: bool, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    operands = [normal(tokens, width), normal(classes, width), normal(classes) if biased else None]
    target, coefficient = torch.randint(classes, (tokens,)), torch.rand(tokens).double()
    rows = torch.randint(classes, (samples,)).sort().values  # with repeats, each for itself
    offset, own_offset = normal(samples), normal(tokens)
    offset[::4] = -torch.inf  # not in the sample
    count = torch.randint(3, (samples,)).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("softmax_bench.ops.cuda.shared_sample.SCORES_AT_ONCE", at_once)
        of_tokens = [target, coefficient, rows, offset]
        assert_near(
            partial(ops.subset_cross_entropy, **form),  # type: ignore[arg-type]
            partial(reference.subset_cross_entropy, **form),  # type: ignore[arg-type]
            operands,
            [*of_tokens, own_offset],
            dtype,
            apart=apart,
        )
        assert_near(
            ops.subset_logistic,
            reference.subset_logistic,
            [*operands, normal()],
            [*of_tokens, count, own_offset],
            dtype,
            apart=apart,
        )
        assert_near(
            ops.subset_blackout,
            reference.subset_blackout,
            operands,
            [*of_tokens, count, own_offset],
            dtype,
            apart=apart,
        )


@pytest.mark.parametrize("precision", ["highest", "high"])
@few
@given(tokens=st.integers(0, 20), blocks=st.integers(1, 5), size=classes, width=widths, **options)
def test_blocks(
    precision: str, tokens: int, blocks: int, size: int, width: int, dtype: torch.dtype,
    biased: bool, apart: bool, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    weight, bias = normal(blocks, size, width), normal(blocks, size) if biased else None
    operands = [normal(tokens, width), weight, bias]
    rows = blocks * size - size // 2  # the last block is filled up
    of_rows = [torch.randint(rows, (tokens,)), torch.rand(tokens).double()]
    tolerance = 5e-3 if (precision, dtype) == ("high", torch.float32) else None
    near = partial(assert_near, dtype=dtype, apart=apart, tolerance=tolerance)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        near(
            ops.block_scores,
            reference.block_scores,
            operands,
            [torch.randint(blocks, (tokens,))],
        )
        near(
            partial(ops.block_cross_entropy, num_rows=rows),
            partial(reference.block_cross_entropy, num_rows=rows),
            operands,
            of_rows,
        )
    finally:
        torch.set_float32_matmul_precision(before)


def group_losses(*operands: Tensor, of: ModuleType) -> Tensor:
    """The losses of group 1 of 3."""
    *rest, group = operands
    groups = group if of is reference else ops.group_tokens(group, 3)
    losses: Tensor = of.group_nll(*rest, groups, 1)
    return losses


def one_group(
    h: Tensor, projection: Tensor, w: Tensor, b: Tensor, target: Tensor, coefficient: Tensor
) -> Tensor:
    """The loss of tokens that are all in one group."""
    groups = ops.group_tokens(torch.zeros_like(target), 1)
    return ops.group_cross_entropy(h, projection, w, b, target, coefficient, groups, 0)


def one_group_by_torch(
    hidden: Tensor, projection: Tensor, weight: Tensor, bias: Tensor, *of_tokens: Tensor
) -> Tensor:
    projected = F.linear(hidden, projection)
    return reference.linear_cross_entropy(projected, weight, bias, *of_tokens)


@few
@given(
    tokens=st.sampled_from([0, 1, 6, 90]),
    classes=st.sampled_from([1, 7, 70]),
    width=st.sampled_from([1, 3, 33, 130]),
    **options,
)
def test_groups(
    tokens: int, classes: int, width: int, dtype: torch.dtype, biased: bool, apart: bool, seed: int
) -> None:
    """More tokens than a tile has, more classes, and more dimensions than a program holds."""
    torch.manual_seed(seed)
    operands = [normal(tokens, 5), normal(width, 5) / 2, normal(classes, width) / width**0.5]
    assert_near(
        partial(group_losses, of=ops),
        partial(group_losses, of=reference),
        [*operands, normal(classes) if biased else None],
        [torch.randint(classes, (tokens,)), torch.randint(3, (tokens,))],
        dtype,
        apart=apart,
    )


@pytest.mark.parametrize("on_kernels", [True, False])
def test_small_coefficients_do_not_underflow_in_float16(
    on_kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a mean over very many tokens: errors relative to the gradients themselves."""
    if not on_kernels:
        monkeypatch.setattr("softmax_bench.ops.dispatch.on_cuda", lambda tensor: False)
    hidden, weight, bias = normal(20, 8), normal(40, 8), normal(40)
    target, coefficient = torch.randint(40, (20,)), torch.full((20,), 1e-5)
    rows, offset, own_offset = torch.arange(0, 40, 2), torch.zeros(20), torch.zeros(20)
    of_sample = [target, coefficient, rows, offset]
    of_blocks = [hidden, weight.view(5, 8, 8), bias.view(5, 8)]
    cases: list[tuple[Callable[..., Tensor], Callable[..., Tensor], list[Tensor], list[Tensor]]] = [
        (ops.subset_cross_entropy, reference.subset_cross_entropy,
         [hidden, weight, bias], [*of_sample, own_offset]),
        (ops.subset_logistic, reference.subset_logistic,
         [hidden, weight, bias, normal()], [*of_sample, torch.ones(20), own_offset]),
        (partial(ops.block_cross_entropy, num_rows=40),
         partial(reference.block_cross_entropy, num_rows=40), of_blocks, [target, coefficient]),
        (ops.subset_blackout, reference.subset_blackout,
         [hidden, weight, bias], [*of_sample, torch.ones(20), own_offset]),
        (one_group, one_group_by_torch, [hidden, torch.eye(8), weight, bias],
         [target, coefficient]),
    ]  # fmt: skip
    for ours, plain, operands, rest in cases:
        gradients = []
        for function, kind in ((ours, torch.float16), (plain, torch.float64)):
            leaves = [x.to(DEVICE, torch.float16).to(kind).requires_grad_() for x in operands]
            others = [
                x.to(kind) if x.is_floating_point() and function is plain else x for x in rest
            ]
            (1e5 * function(*leaves, *(x.to(DEVICE) for x in others))).backward()
            gradients.append([x.grad.to_dense().double() for x in leaves if x.grad is not None])
        for seen, exact in zip(*gradients, strict=True):
            assert float((seen - exact).norm() / exact.norm()) < 5e-3


@pytest.mark.parametrize(("wrong", "not_a_number"), [(-1, torch.nan), (2**31 - 1, torch.inf)])
def test_wrong_ids_and_numbers_stay_with_their_token(wrong: int, not_a_number: float) -> None:
    """In bounds (see the guard), and what other tokens get is what they would get alone."""
    width, count = 3, 7
    hidden, weight, bias = (
        x.float().to(DEVICE) for x in (normal(4, width), normal(7, 3), normal(7))
    )
    target = torch.tensor([0, 6, 2, 6], device=DEVICE)
    coefficient, offset = torch.ones(4, device=DEVICE), torch.zeros(2, device=DEVICE)
    table = path_table(huffman_tree(np.ones(count + 1)), 1)
    starts, rows = torch.arange(5, device=DEVICE), torch.tensor([1, 3], device=DEVICE)
    bad = hidden.clone()
    bad[1] = not_a_number
    wrong_target = target.clone()
    wrong_target[1] = wrong

    def gradient(h: Tensor, ids: Tensor, primitive: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        leaf = h.clone().requires_grad_()
        primitive(leaf, ids).sum().backward()
        assert leaf.grad is not None
        return leaf.grad[[0, 2, 3]]

    of_sample = rows, offset, torch.ones_like(offset), torch.zeros_like(coefficient)
    log_z = torch.zeros((), device=DEVICE)
    blocks = weight[:6].view(3, 2, width)
    primitives: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "pairs": lambda h, ids: ops.pair_scores(h, weight, bias, starts, ids),
        "pairs with a loss": lambda h, ids: ops.pair_logistic(
            h, weight, bias, ids.unsqueeze(1), offset[:1].expand(4, 1)
        ),
        "paths": lambda h, ids: ops.path_losses(h, weight, bias, table, ids),
        "cross-entropy": lambda h, ids: ops.subset_cross_entropy(
            h, weight, bias, ids, coefficient, rows, offset, torch.zeros_like(coefficient)
        ),
        "blackout": lambda h, ids: ops.subset_blackout(
            h, weight, bias, ids, coefficient, *of_sample
        ),
        "logistic": lambda h, ids: ops.subset_logistic(
            h, weight, bias, log_z, ids, coefficient, *of_sample
        ),
        "groups": lambda h, ids: one_group(
            h, torch.eye(width, device=DEVICE), weight, bias, ids, coefficient
        ),
        "blocks": lambda h, ids: ops.block_cross_entropy(h, blocks, None, ids, coefficient, 6),
        "block scores": lambda h, ids: ops.block_scores(h, blocks, None, ids // 2),
    }
    for name, primitive in primitives.items():
        alone = gradient(hidden, target, primitive)
        assert alone.isfinite().all(), name
        for h, ids in ((bad, target), (hidden, wrong_target)):
            torch.testing.assert_close(gradient(h, ids, primitive), alone, msg=name)


def test_starts_that_run_away_stay_within_the_pairs() -> None:
    hidden, weight = torch.randn(3, 2, device=DEVICE), torch.randn(4, 2, device=DEVICE)
    rows = torch.tensor([0, 3], device=DEVICE)
    for starts in ([-5, 1, 1, 900], [2, 0, 3, 2]):
        leaf = hidden.clone().requires_grad_()
        scores = ops.pair_scores(leaf, weight, None, torch.tensor(starts, device=DEVICE), rows)
        scores.sum().backward()
        assert scores.isfinite().all()
