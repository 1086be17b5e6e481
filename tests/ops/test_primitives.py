"""Every primitive against its plain formula under autograd, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from softmax_bench import ops
from softmax_bench.ops import all_classes as linear
from softmax_bench.ops import reference
from softmax_bench.ops.cpu import block_batches, softmax_loss
from softmax_bench.ops.cpu import pairs as pair_module
from softmax_bench.ops.cpu.large_pages import empty_buffer


@pytest.fixture(autouse=True, scope="module")
def _blocked_pass_at_any_size() -> Iterator[None]:
    """These small operands would otherwise all be left to torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "PLAIN_SCORES", -1)
        yield


sizes = st.tuples(
    st.integers(0, 9),  # tokens
    st.integers(1, 40),  # classes
    st.integers(1, 6),  # width
    st.integers(0, 2**31),  # seed
)


def assert_same(
    fast: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    differentiable: list[Tensor | None],
    rest: list[Tensor],
    tolerance: float = 1e-9,
) -> None:
    """Equal values, and equal gradients of a random combination of them."""
    results = []
    for function in (fast, plain):
        leaves = [None if x is None else x.clone().requires_grad_() for x in differentiable]
        value = function(*leaves, *rest)
        torch.manual_seed(1)
        (value * torch.randn_like(value)).sum().backward()
        gradients = [
            torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.to_dense()
            for leaf in leaves
            if leaf is not None
        ]
        results.append([value.detach(), *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def operands(
    tokens: int, classes: int, width: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    hidden = torch.randn(tokens, width, dtype=dtype)
    weight = torch.randn(classes, width, dtype=dtype)
    bias = torch.randn(classes, dtype=dtype)
    target = torch.randint(classes, (tokens,))
    coefficient = torch.rand(tokens, dtype=dtype)
    return hidden, weight, bias, target, coefficient


@pytest.fixture(params=["one block", "many blocks and tiles"])
def _blocking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small limits, so that small operands are cut into several blocks and tiles."""
    if request.param != "one block":
        monkeypatch.setattr(softmax_loss, "MIN_BLOCK_TOKENS", 2)
        monkeypatch.setattr(softmax_loss, "BLOCK_ELEMENTS", 16)
        monkeypatch.setattr(
            softmax_loss,
            "class_tiles",
            lambda _, classes, __: [slice(i, min(i + 3, classes)) for i in range(0, classes, 3)],
        )


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.usefixtures("_blocking")
def test_linear_cross_entropy(with_bias: bool) -> None:
    for size in ((0, 3, 2), (1, 1, 1), (7, 13, 5), (20, 50, 8)):
        hidden, weight, bias, target, coefficient = operands(*size)
        operand_list = [hidden, weight, bias if with_bias else None]
        assert_same(
            ops.linear_cross_entropy,
            reference.linear_cross_entropy,
            operand_list,
            [target, coefficient],
        )
        assert_same(
            partial(ops.linear_cross_entropy, penalty=0.3),
            partial(reference.linear_cross_entropy, penalty=0.3),
            operand_list,
            [target, coefficient],
        )
        for part in (0, 1):
            assert_same(
                lambda *operands, part=part: ops.linear_nll(*operands)[part],
                lambda h, w, b, t, part=part: (
                    reference.log_normalizer(h, w, b) if part else reference.linear_nll(h, w, b, t)
                ),
                operand_list,
                [target],
            )


@pytest.mark.parametrize("penalty", [0.0, 0.2])
def test_few_scores_are_left_to_torch(monkeypatch: pytest.MonkeyPatch, penalty: float) -> None:
    monkeypatch.setattr(linear, "PLAIN_SCORES", 100)
    for size in ((7, 13, 5), (20, 50, 8)):  # below and above
        hidden, weight, bias, target, coefficient = operands(*size)
        assert_same(
            partial(ops.linear_cross_entropy, penalty=penalty),
            partial(reference.linear_cross_entropy, penalty=penalty),
            [hidden, weight, bias],
            [target, coefficient],
        )


@given(sizes, st.booleans())
def test_linear_cross_entropy_any_size(size: tuple[int, int, int, int], with_bias: bool) -> None:
    torch.manual_seed(size[3])
    hidden, weight, bias, target, coefficient = operands(*size[:3])
    assert_same(
        ops.linear_cross_entropy,
        reference.linear_cross_entropy,
        [hidden, weight, bias if with_bias else None],
        [target, coefficient],
    )


@given(sizes, st.integers(0, 40), st.booleans())
def test_subset_losses_any_size(
    size: tuple[int, int, int, int], num_rows: int, with_bias: bool
) -> None:
    torch.manual_seed(size[3])
    hidden, weight, bias, target, coefficient = operands(*size[:3])
    rows = torch.randperm(size[1])[:num_rows].sort()[0]
    row_offset = torch.randn(rows.shape[0], dtype=torch.float64)
    target_offset = torch.randn(size[0], dtype=torch.float64)
    count = torch.randint(1, 4, rows.shape).double()
    log_z = torch.tensor(0.3, dtype=torch.float64)
    kept_bias = bias if with_bias else torch.zeros_like(bias)

    def no_bias(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda h, w, b, *rest: function(h, w, b if with_bias else None, *rest)

    if with_bias:
        for options in ({}, {"keep_hits": True}, {"penalty": 0.4}):
            assert_same(
                partial(ops.subset_cross_entropy, **options),
                partial(reference.subset_cross_entropy, **options),
                [hidden, weight, kept_bias],
                [target, coefficient, rows, row_offset, target_offset],
            )
        assert_same(
            ops.subset_logistic,
            reference.subset_logistic,
            [hidden, weight, kept_bias, log_z],
            [target, coefficient, rows, row_offset, count, target_offset],
        )
        assert_same(
            ops.subset_blackout,
            reference.subset_blackout,
            [hidden, weight, kept_bias],
            [target, coefficient, rows, row_offset, count, target_offset],
        )
    else:
        value = no_bias(ops.subset_cross_entropy)(
            hidden, weight, bias, target, coefficient, rows, row_offset, target_offset
        )
        plain = reference.subset_cross_entropy(
            hidden, weight, kept_bias, target, coefficient, rows, row_offset, target_offset
        )
        torch.testing.assert_close(value, plain)


@pytest.mark.usefixtures("_blocking")
def test_subset_losses_in_tiles() -> None:
    hidden, weight, bias, target, coefficient = operands(20, 50, 8)
    rows = torch.randperm(50)[:31].sort()[0]
    row_offset = torch.randn(31, dtype=torch.float64)
    offset = torch.randn(20, dtype=torch.float64)
    rest = [target, coefficient, rows, row_offset, offset]
    assert_same(
        ops.subset_cross_entropy, reference.subset_cross_entropy, [hidden, weight, bias], rest
    )


@given(sizes, st.integers(0, 40), st.booleans())
def test_subset_scores(size: tuple[int, int, int, int], num_rows: int, with_bias: bool) -> None:
    torch.manual_seed(size[3])
    hidden, weight, bias, target, _ = operands(*size[:3])
    rows = torch.randperm(size[1])[:num_rows]
    for part in (0, 1):
        assert_same(
            lambda *operands, part=part: ops.subset_scores(*operands)[part],
            lambda *operands, part=part: reference.subset_scores(*operands)[part],
            [hidden, weight, bias if with_bias else None],
            [target, rows],
        )


@given(sizes, st.integers(1, 7), st.booleans())
def test_block_scores(size: tuple[int, int, int, int], blocks: int, with_bias: bool) -> None:
    torch.manual_seed(size[3])
    tokens, width = size[0], size[2]
    hidden = torch.randn(tokens, width, dtype=torch.float64)
    weight = torch.randn(blocks, size[1], width, dtype=torch.float64)
    bias = torch.randn(blocks, size[1], dtype=torch.float64) if with_bias else None
    block = torch.randint(blocks, (tokens,))
    assert_same(ops.block_scores, reference.block_scores, [hidden, weight, bias], [block])


@given(sizes, st.integers(1, 7), st.booleans(), st.booleans(), st.booleans())
def test_block_cross_entropy(
    size: tuple[int, int, int, int], blocks: int, filled_up: bool, with_bias: bool, alone: bool
) -> None:
    torch.manual_seed(size[3])
    tokens, width = size[0], size[2]
    hidden = torch.randn(tokens, width, dtype=torch.float64)
    weight = torch.randn(blocks, size[1], width, dtype=torch.float64)
    bias = torch.randn(blocks, size[1], dtype=torch.float64) if with_bias else None
    rows = blocks * size[1] - (size[1] // 2 if filled_up else 0)
    target, coefficient = torch.randint(rows, (tokens,)), torch.rand(tokens).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_batches, "_EMPTY", 0 if alone else block_batches._EMPTY)
        assert_same(
            partial(ops.block_cross_entropy, num_rows=rows),
            partial(reference.block_cross_entropy, num_rows=rows),
            [hidden, weight, bias],
            [target, coefficient],
        )


@given(sizes, st.booleans(), st.integers(0, 2))
def test_groups(size: tuple[int, int, int, int], with_bias: bool, index: int) -> None:
    torch.manual_seed(size[3])
    hidden, weight, bias, target, coefficient = operands(*size[:3])
    projection, group = torch.randn(size[2], size[2]).double(), torch.randint(3, target.shape)
    groups = ops.group_tokens(group, 3)
    leaves = [hidden, projection, weight, bias if with_bias else None]
    assert_same(
        partial(ops.group_nll, groups=groups, index=index),
        partial(reference.group_nll, group=group, index=index),
        leaves,
        [target],
    )

    def plain(*operands: Tensor) -> Tensor:
        h, p, w, b, target, coefficient = operands
        return torch.dot(reference.group_nll(h, p, w, b, target, group, index), coefficient)

    assert_same(
        partial(ops.group_cross_entropy, groups=groups, index=index),
        plain,
        leaves,
        [target, coefficient],
    )


def random_pairs(tokens: int, classes: int, most: int) -> tuple[Tensor, Tensor]:
    lengths = torch.randint(0, most + 1, (tokens,))
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return starts, torch.randint(classes, (int(starts[-1]),))


@pytest.mark.parametrize("sparse_products", [True, False])
@given(size=sizes, with_bias=st.booleans())
def test_pair_scores_any_size(
    sparse_products: bool, size: tuple[int, int, int, int], with_bias: bool
) -> None:
    torch.manual_seed(size[3])
    hidden, weight, bias, _, _ = operands(*size[:3])
    starts, rows = random_pairs(size[0], size[1], 5)
    with pytest.MonkeyPatch.context() as patch:
        if not sparse_products:
            patch.setattr(pair_module, "_has_sparse_products", lambda device: False)
        assert_same(
            ops.pair_scores,
            reference.pair_scores,
            [hidden, weight, bias if with_bias else None],
            [starts, rows],
        )


def test_row_gradients_are_coalesced_and_touch_only_their_rows() -> None:
    weight = torch.randn(1000, 4, requires_grad=True)
    ops.keep_coalesced(weight)
    ids = torch.tensor([[5, 900], [5, 3]])
    embedded = ops.embed_rows(weight, ids)
    torch.testing.assert_close(embedded, weight[ids])
    embedded.sum().backward()
    assert weight.grad is not None
    assert weight.grad.is_coalesced()
    assert weight.grad.indices().tolist() == [[3, 5, 900]]
    assert weight.grad.values()[:, 0].tolist() == [1.0, 2.0, 1.0]


def test_sum_of_two_row_gradients_is_not_taken_for_coalesced() -> None:
    weight = torch.randn(10, 2, requires_grad=True)
    ops.keep_coalesced(weight)
    (
        ops.embed_rows(weight, torch.tensor([1, 2])).sum()
        + ops.embed_rows(weight, torch.tensor([2, 3])).sum()
    ).backward()
    assert weight.grad is not None
    assert weight.grad.to_dense()[:, 0].tolist() == [0, 1, 2, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_scores_do_not_overflow(scale: float) -> None:
    hidden = torch.tensor([[scale, 0.0]])
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.5, 0.0]])
    bias = torch.zeros(3)
    target = torch.tensor([0])
    leaf = hidden.clone().requires_grad_()
    loss = ops.linear_cross_entropy(leaf, weight, bias, target, torch.ones(1))
    loss.backward()
    expected = 0.0 if scale > 0 else 2e4
    torch.testing.assert_close(loss.detach(), torch.tensor(expected))
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_accumulates_in_float32(dtype: torch.dtype) -> None:
    hidden, weight, bias, target, _ = operands(64, 5000, 32)
    hidden, weight = hidden * 0.3, weight * 0.3
    coefficient = torch.full((64,), 1 / 64, dtype=torch.float64)
    h, w, b = (x.to(dtype) for x in (hidden, weight, bias))
    exact = reference.linear_cross_entropy(h.double(), w.double(), b.double(), target, coefficient)
    loss = ops.linear_cross_entropy(h, w, b, target, coefficient.float())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-3, atol=0)


def test_second_backward_says_what_to_do() -> None:
    hidden, weight, bias, target, coefficient = operands(3, 5, 2)
    loss = ops.linear_cross_entropy(hidden.requires_grad_(), weight, bias, target, coefficient)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="call forward again"):
        loss.backward()


@pytest.mark.usefixtures("_blocking")
def test_a_later_tile_may_exceed_all_before_by_any_amount() -> None:
    """References are taken from the tiles before: where that overflows, maxima are looked for."""
    hidden, weight, bias, target, coefficient = operands(6, 30, 4)
    bias = torch.linspace(-9e3, 9e3, 30, dtype=torch.float64)
    assert_same(
        ops.linear_cross_entropy,
        reference.linear_cross_entropy,
        [hidden, weight, bias],
        [target, coefficient],
    )
    rows = torch.arange(30)
    assert_same(
        ops.subset_cross_entropy,
        reference.subset_cross_entropy,
        [hidden, weight, bias],
        [target, coefficient, rows, torch.zeros(30), torch.zeros(6)],
    )
    nll, log_z = ops.linear_nll(hidden.float(), weight.float(), bias.float(), target)
    exact = reference.linear_nll(hidden, weight, bias, target)
    torch.testing.assert_close(nll.double(), exact, rtol=1e-6, atol=1e-6)
    assert bool(log_z.isfinite().all())
    log_odds = torch.tensor(0.0, dtype=torch.float64)
    count = torch.ones(30, dtype=torch.float64)
    assert_same(
        ops.subset_logistic,
        reference.subset_logistic,
        [hidden, weight, bias, log_odds],
        [target, coefficient, rows, torch.zeros(30), count, torch.zeros(6)],
    )


def test_float32_gradients_are_those_of_float64_to_five_digits() -> None:
    """For every primitive, at a size like those in use: 1e-5 of the gradient's norm."""
    tokens, classes, width = 300, 3000, 128
    hidden, weight, bias, target, coefficient = operands(tokens, classes, width)
    hidden, weight, coefficient = hidden.tanh(), weight * 0.1, coefficient / tokens
    rows = torch.arange(0, classes, 3)
    offset, own_offset = torch.randn(rows.shape[0]).double(), torch.randn(tokens).double()
    count, log_odds = torch.ones_like(offset), torch.tensor(0.3, dtype=torch.float64)
    starts, pairs = random_pairs(tokens, classes, 20)
    blocks = torch.randint(30, (tokens,))
    operand_list = [hidden, weight, bias]
    for function, operands_of, rest in (
        (ops.linear_cross_entropy, operand_list, [target, coefficient]),
        (lambda *a: ops.linear_nll(*a)[0], operand_list, [target]),
        (ops.subset_cross_entropy, operand_list, [target, coefficient, rows, offset, own_offset]),
        (
            ops.subset_logistic,
            [*operand_list, log_odds],
            [target, coefficient, rows, offset, count, own_offset],
        ),
        (
            ops.subset_blackout,
            operand_list,
            [target, coefficient, rows, offset - 6, count, own_offset - 6],
        ),
        (lambda *a: ops.subset_scores(*a)[1], operand_list, [target, rows]),
        (ops.pair_scores, operand_list, [starts, pairs]),
        (ops.block_scores, [hidden, weight.view(30, 100, -1), bias.view(30, 100)], [blocks]),
        (
            partial(ops.block_cross_entropy, num_rows=classes),
            [hidden, weight.view(30, 100, -1), bias.view(30, 100)],
            [target, coefficient],
        ),
    ):
        gradients = []
        for dtype in (torch.float32, torch.float64):
            leaves = [x.to(dtype).detach().clone().requires_grad_() for x in operands_of]
            others = [x.to(dtype) if x.is_floating_point() else x for x in rest]
            value = function(*leaves, *others)
            value.sum().backward()
            gradients.append([leaf.grad.to_dense().double() for leaf in leaves])  # type: ignore[union-attr]
        for single, double in zip(*gradients, strict=True):
            assert float((single - double).norm() / double.norm()) < 1e-5


def test_buffers_in_large_pages_are_buffers() -> None:
    """Just above the size from which on they are asked for, and below."""
    for numel in (2**23 + 5, 100):
        buffer = empty_buffer((numel,), torch.float32, torch.device("cpu"))
        buffer.fill_(2.0)
        assert buffer.shape == (numel,)
        assert float(buffer.sum(dtype=torch.float64)) == 2.0 * numel
