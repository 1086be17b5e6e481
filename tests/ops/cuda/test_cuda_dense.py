"""Softmax over all classes on the kernels: against torch's own of all scores, for all options."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from softmax_bench import ops
from softmax_bench.layers import create_layer
from softmax_bench.ops import reference, token_chunks
from softmax_bench.ops.objective import Terms
from tests.ops.test_primitives import assert_same

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.usefixtures("_as_on_cuda"),
    # Triton's interpreter computes masked lanes too, and numpy remarks on it.
    pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning"),
]

OPTIONS: dict[str, dict[str, float]] = {
    "plain": {},
    "penalty": {"penalty": 0.3},
    "smoothing": {"label_smoothing": 0.2},
    "capped": {"soft_cap": 2.0},
    "all": {"penalty": 0.1, "label_smoothing": 0.1, "soft_cap": 3.0},
}
SIZES = [(0, 3, 2), (1, 1, 1), (3, 2, 4), (5, 129, 3), (2, 4500, 2)]


def operands(
    tokens: int, classes: int, width: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    hidden, weight = torch.randn(tokens, width), torch.randn(classes, width)
    bias, class_weight = torch.randn(classes), torch.rand(classes)
    target, coefficient = torch.randint(classes, (tokens,)), torch.rand(tokens)
    coefficient[1::3] = 0  # ignored
    floats = [x.to(DEVICE, dtype) for x in (hidden, weight, bias)]
    sums = [x.to(DEVICE, torch.float64) for x in (coefficient, class_weight)]
    return floats[0], floats[1], floats[2], target.to(DEVICE), sums[0], sums[1]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("everything", [False, True], ids=["bare", "bias and class weights"])
def test_loss_and_gradients(
    size: tuple[int, int, int], options: dict[str, float], everything: bool
) -> None:
    hidden, weight, bias, target, coefficient, class_weight = operands(*size)
    options = {**options, "class_weight": class_weight if everything else None}  # type: ignore[dict-item]
    assert_same(
        partial(ops.linear_cross_entropy, **options),  # type: ignore[arg-type]
        partial(reference.linear_cross_entropy, **options),  # type: ignore[arg-type]
        [hidden, weight, bias if everything else None],
        [target, coefficient],
    )


@pytest.mark.parametrize("soft_cap", [0.0, 2.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sums_and_their_gradients(size: tuple[int, int, int], soft_cap: float) -> None:
    hidden, weight, bias, target, _, class_weight = operands(*size)
    terms = Terms(soft_cap, class_weight, mean=True, expected=True, best=True)
    for part in range(4):
        ours, exact = (
            lambda *operands, of=of, part=part: of.token_sums(*operands, terms)[part]
            for of in (ops, reference)
        )
        assert_same(ours, exact, [hidden, weight, bias], [target])
    best = ops.token_sums(hidden, weight, bias, target, terms).best
    assert best is not None
    assert best.tolist() == torch.addmm(bias, hidden, weight.t()).argmax(1).tolist()


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 0.003)],
    ids=str,
)
@pytest.mark.parametrize("save_memory", [False, True])
def test_lower_precision(
    dtype: torch.dtype, tolerance: float, save_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative error of loss and gradients, weights of 1/N, several chunks of tokens."""
    monkeypatch.setattr(token_chunks, "FEWEST_TOKENS", 4)
    monkeypatch.setattr(token_chunks, "FOR_TIME", 8 * 300 * dtype.itemsize)
    monkeypatch.setattr(token_chunks, "FOR_MEMORY", 0)
    hidden, weight, bias, target, _, _ = operands(20, 300, 16, dtype)
    coefficient = torch.full((20,), 1 / 20, device=DEVICE)
    results = []
    for function, kind in (
        (partial(ops.linear_cross_entropy, save_memory=save_memory), dtype),
        (reference.linear_cross_entropy, torch.float64),
    ):
        h, w, b = (x.detach().to(kind).requires_grad_() for x in (hidden, weight, bias))
        loss = function(h, w, b, target, coefficient)
        loss.backward()
        results.append([loss.detach(), h.grad, w.grad, b.grad])
    for ours, exact in zip(*results, strict=True):
        assert ours is not None
        assert exact is not None
        assert float((ours.double() - exact).norm() / exact.norm()) < tolerance


def test_small_chunks_of_a_large_gradient_in_half_precision_are_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of 8 chunks adds half of what bfloat16 can tell apart near the first one's."""
    monkeypatch.setattr(token_chunks, "FEWEST_TOKENS", 2)
    monkeypatch.setattr(token_chunks, "FOR_TIME", 16)
    hidden, target = torch.ones(18, 1, dtype=torch.bfloat16), torch.zeros(18, dtype=torch.int64)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, device=DEVICE, requires_grad=True)
    coefficient = torch.full((18,), 2.0**-8)
    coefficient[0], coefficient[1] = 2.0, 0.0
    loss = ops.linear_cross_entropy(
        hidden.to(DEVICE), weight, None, target.to(DEVICE), coefficient.to(DEVICE)
    )
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[-1 - 8 * 2.0**-8], [1 + 8 * 2.0**-8]]


def test_the_memory_setting_holds_for_losses_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    budgets, chunks = [], token_chunks.chunks

    def watched(tokens: int, classes: int, score_bytes: int, budget: int) -> Iterator[slice]:
        budgets.append(budget)
        return chunks(tokens, classes, score_bytes, budget)

    monkeypatch.setattr(token_chunks, "chunks", watched)
    layer = create_layer("full", 3, 20, reduction="none", save_memory=True).to(DEVICE)
    hidden = torch.randn(4, 3, device=DEVICE, requires_grad=True)
    layer(hidden, torch.arange(4, device=DEVICE)).sum().backward()
    assert max(budgets) <= token_chunks.FOR_MEMORY


@pytest.mark.parametrize("frozen", [{0}, {1}, {2}, {0, 1}, {1, 2}], ids=str)
@pytest.mark.parametrize("with_sums", [False, True])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(
    frozen: set[int], with_sums: bool
) -> None:
    hidden, weight, bias, target, coefficient, _ = operands(4, 30, 4)
    gradients = []
    for left_out in (set(), frozen):
        h, w, b = (
            x.clone().requires_grad_(place not in left_out)
            for place, x in enumerate((hidden, weight, bias))
        )
        if with_sums:
            loss = ops.linear_nll(h, w, b, target)[0].dot(coefficient)
        else:
            loss = ops.linear_cross_entropy(h, w, b, target, coefficient)
        loss.backward()
        gradients.append([h.grad, w.grad, b.grad])
    for place, (whole, part) in enumerate(zip(*gradients, strict=True)):
        assert (part is None) == (place in frozen)
        if part is not None:
            torch.testing.assert_close(part, whole)


def test_operands_that_are_not_contiguous() -> None:
    hidden, weight, bias, target, coefficient, _ = operands(9, 21, 6)
    h = hidden.t().contiguous().t()
    w = torch.stack([weight, weight], 2)[:, :, 0]
    b, t, c = (torch.stack([x, x], 1)[:, 0] for x in (bias, target, coefficient))
    assert_same(
        ops.linear_cross_entropy,
        reference.linear_cross_entropy,
        [hidden, weight, bias],
        [target, coefficient],
    )
    whole = ops.linear_cross_entropy(hidden, weight, bias, target, coefficient)
    torch.testing.assert_close(ops.linear_cross_entropy(h, w, b, t, c), whole)
    nll = ops.linear_nll(hidden, weight, bias, target)[0]
    torch.testing.assert_close(ops.linear_nll(h, w, b, t)[0], nll)


@pytest.mark.parametrize("wrong", [-1, 21, 2**40, -(2**62)])
def test_a_target_that_is_no_class_reads_nothing_and_writes_nothing(wrong: int) -> None:
    hidden, weight, bias, target, coefficient, class_weight = operands(9, 21, 6)
    target[2], coefficient[2] = wrong, 1.0
    leaf = hidden.clone().requires_grad_()
    loss = ops.linear_cross_entropy(
        leaf, weight, bias, target, coefficient, class_weight=class_weight, label_smoothing=0.1
    )
    assert loss.isnan()
    loss.backward()
    assert leaf.grad is not None
    assert leaf.grad[2].tolist() == [0.0] * 6
    assert leaf.grad.isfinite().all()
    nll, log_z = ops.linear_nll(hidden, weight, bias, target)
    assert nll.isnan().tolist() == [n == 2 for n in range(9)]
    assert log_z.isfinite().all()


def test_numbers_that_are_not_finite_stay_with_their_token() -> None:
    hidden, weight, bias, target, coefficient, _ = operands(9, 21, 6)
    hidden[2], hidden[4], coefficient[[2, 4]] = torch.nan, torch.inf, 1.0
    bias[3] = -torch.inf  # a class that is never chosen
    target = target.masked_fill(target == 3, 0)
    nll, _ = ops.linear_nll(hidden, weight, bias, target)
    assert nll.isfinite().tolist() == [n not in (2, 4) for n in range(9)]
    leaf = hidden.clone().requires_grad_()
    ops.linear_cross_entropy(leaf, weight, bias, target, coefficient).backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all(1).tolist() == [n not in (2, 4) for n in range(9)]


@given(st.integers(0, 5000), st.integers(1, 10**7), st.sampled_from([2, 4, 8]))
def test_chunks_hold_every_token_once_within_the_budget(
    tokens: int, classes: int, size: int
) -> None:
    chunks = list(token_chunks.chunks(tokens, classes, size, token_chunks.FOR_TIME))
    assert [n for chunk in chunks for n in range(chunk.start, chunk.stop)] == list(range(tokens))
    for chunk in chunks:
        length = chunk.stop - chunk.start
        assert length * classes * size <= token_chunks.FOR_TIME or length <= 128
        assert length <= chunks[0].stop


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("numel", [0, 1, 4097])
@pytest.mark.parametrize("factor", [1.0, -2.5])
def test_gradients_are_scaled(dtype: torch.dtype, numel: int, factor: float) -> None:
    from softmax_bench.ops.cuda.scaling import scale_

    gradient = torch.randn(numel, device=DEVICE).to(dtype)
    wanted = (gradient.double() * factor).to(dtype)
    scale_(gradient, torch.tensor(factor, device=DEVICE))
    torch.testing.assert_close(gradient, wanted)
    apart = torch.randn(6, 4, device=DEVICE).to(dtype).t()
    wanted = (apart.double() * factor).to(dtype)
    scale_(apart, torch.tensor(factor, device=DEVICE))
    torch.testing.assert_close(apart, wanted)
