"""Losses over all classes with every option, on a CPU: against torch's own of all scores."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from softmax_bench import ops
from softmax_bench.ops import all_classes, reference
from softmax_bench.ops.objective import Terms
from tests.ops.test_primitives import assert_same, operands

OPTIONS: dict[str, dict[str, float]] = {
    "penalty": {"penalty": 0.3},
    "smoothing": {"label_smoothing": 0.2},
    "capped": {"soft_cap": 2.0},
    "all": {"penalty": 0.1, "label_smoothing": 0.1, "soft_cap": 3.0},
}
SIZES = [(0, 3, 2), (1, 1, 1), (7, 13, 5), (20, 50, 8)]


@pytest.fixture(autouse=True, params=["blocked", "left to torch"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_classes, "PLAIN_SCORES", -1 if request.param == "blocked" else 2**20)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "class weights"])
def test_loss_and_gradients(
    size: tuple[int, int, int], options: dict[str, float], weighted: bool
) -> None:
    hidden, weight, bias, target, coefficient = operands(*size)
    class_weight = torch.rand(size[1], dtype=torch.float64) if weighted else None
    ours, exact = (
        partial(of.linear_cross_entropy, class_weight=class_weight, **options)
        for of in (ops, reference)
    )
    assert_same(ours, exact, [hidden, weight, bias], [target, coefficient])
    assert_same(ours, exact, [hidden, weight, None], [target, coefficient])


@pytest.mark.parametrize(
    "terms",
    [Terms(mean=True), Terms(2.0, mean=True), Terms(mean=True, expected=True, best=True)],
    ids=str,
)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "class weights"])
def test_sums_and_their_gradients(size: tuple[int, int, int], terms: Terms, weighted: bool) -> None:
    hidden, weight, bias, target, _ = operands(*size)
    if weighted:
        terms = terms._replace(class_weight=torch.rand(size[1], dtype=torch.float64))
    for part in range(4 if terms.expected else 3):
        ours, exact = (
            lambda *operands, of=of, part=part: of.token_sums(*operands, terms)[part]
            for of in (ops, reference)
        )
        assert_same(ours, exact, [hidden, weight, bias], [target])
    if terms.best:
        best = ops.token_sums(hidden, weight, bias, target, terms).best
        assert best is not None
        assert best.tolist() == torch.addmm(bias, hidden, weight.t()).argmax(1).tolist()


@pytest.mark.parametrize("frozen", [{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}], ids=str)
@pytest.mark.parametrize("soft_cap", [0.0, 2.0])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(
    frozen: set[int], soft_cap: float
) -> None:
    hidden, weight, bias, target, coefficient = operands(20, 30, 4)
    gradients = []
    for left_out in (set(), frozen):
        h, w, b = (
            x.clone().requires_grad_(place not in left_out)
            for place, x in enumerate((hidden, weight, bias))
        )
        loss = ops.linear_cross_entropy(
            h, w, b, target, coefficient, label_smoothing=0.1, soft_cap=soft_cap
        )
        nll = ops.token_sums(h, w, b, target, Terms(soft_cap, mean=True))
        assert nll.mean_score is not None
        (loss + (nll.target_score * coefficient + nll.mean_score).sum()).backward()
        gradients.append([h.grad, w.grad, b.grad])
    for place, (whole, part) in enumerate(zip(*gradients, strict=True)):
        assert (part is None) == (place in frozen)
        if part is not None:
            torch.testing.assert_close(part, whole)


def test_small_weights_do_not_vanish_in_float16() -> None:
    """A mean over many tokens: gradients of single scores lie below float16's least number."""
    hidden, weight, bias, target, _ = operands(2000, 300, 8)
    gradients = []
    for dtype, sums in ((torch.float16, torch.float32), (torch.float64, torch.float64)):
        h, w, b = (x.to(dtype).requires_grad_() for x in (hidden, weight, bias))
        coefficient = torch.full((2000,), 1 / 2000, dtype=sums)
        (1000 * ops.linear_cross_entropy(h, w, b, target, coefficient)).backward()
        assert w.grad is not None
        gradients.append(w.grad.double())
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 0.01
