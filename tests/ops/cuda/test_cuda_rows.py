"""Row-sparse sums, norms and updates against torch's dense ones, for whatever ids."""

from __future__ import annotations

from functools import partial
from inspect import unwrap
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

DTYPES = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.15}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@given(
    entries=st.integers(0, 150),
    num_rows=st.sampled_from([1, 2, 7, 500]),
    width=st.sampled_from([1, 3, 16, 33]),
    shared=st.booleans(),
    dtype=DTYPES,
    seed=st.integers(0, 1000),
)
def test_sums_of_rows(
    entries: int, num_rows: int, width: int, shared: bool, dtype: torch.dtype, seed: int
) -> None:
    from softmax_bench.ops.cuda.rows import distinct_rows, sum_rows
    from softmax_bench.ops.cuda.updates import merged, row_norm, scale_rows_

    torch.manual_seed(seed)
    ids = torch.randint(-2, num_rows + 2, (entries,), device=DEVICE)  # some are no rows
    values = torch.randn(9 if shared else entries, width, device=DEVICE).to(dtype)
    scale = torch.randn(entries, device=DEVICE).to(dtype) if shared else None
    source = torch.randint(9, (entries,), device=DEVICE) if shared else None
    rows = distinct_rows(ids, num_rows)
    gradient = sum_rows(rows, values, num_rows, scale=scale, source=source)
    each = values.double() if source is None else values.double()[source]
    each = each if scale is None else each * scale.double().unsqueeze(1)
    known = (ids >= 0) & (ids < num_rows)
    wanted = torch.zeros(num_rows, width, dtype=torch.float64, device=DEVICE)
    wanted.index_add_(0, ids[known], each[known])
    close = partial(assert_close, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    close(gradient.to_dense().double(), wanted)
    assert int(rows.count) == ids[known].unique().numel()
    # As a stored gradient it is known to be summed; added to another one it is summed again.
    weight = nn.Parameter(torch.zeros(num_rows, width, dtype=dtype, device=DEVICE))
    weight.grad = gradient
    assert merged(weight.grad) is weight.grad
    stored = [torch.cat([x, x], -1) for x in (gradient._indices(), gradient._values().t())]
    sum_of_two = torch.sparse_coo_tensor(
        stored[0], stored[1].t(), gradient.shape, check_invariants=False
    )
    twice = merged(sum_of_two)
    close(twice.to_dense().double(), 2 * wanted)
    of_both = twice._values(), twice._indices()[0]
    close(row_norm(*of_both).double(), 2 * wanted.norm())
    scale_rows_(*of_both, torch.tensor(0.25, device=DEVICE))
    close(twice.to_dense().double(), wanted / 2)


def test_a_long_run_is_summed_in_the_same_order_every_time() -> None:
    from softmax_bench.ops.cuda.rows import distinct_rows, sum_rows

    ids = torch.zeros(2000, dtype=torch.int64, device=DEVICE)
    ids[1900:] = 3
    values = torch.randn(2000, 5, device=DEVICE)
    once, again = (sum_rows(distinct_rows(ids, 4), values, 4).to_dense() for _ in range(2))
    assert torch.equal(once, again)
    assert_close(once[0], values[:1900].sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", ["sgd", "adagrad", "adam"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(9, 5), (3, 2100), (7,), (2, 3, 4)])
def test_updates_are_the_plain_ones(rule: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    from softmax_bench.ops.cpu import updates as plain
    from softmax_bench.ops.cuda import rows, updates

    ids = torch.arange(shape[0], device=DEVICE).flip(0)[:2]
    ours = [torch.rand(shape, device=DEVICE).to(dtype) for _ in range(3)]
    theirs = [table.clone() for table in ours]
    for number in (1, 2):
        values = torch.randn(ids.shape[0], *shape[1:], device=DEVICE).to(dtype)
        gradient = rows.sum_rows(rows.distinct_rows(ids, shape[0]), values, shape[0])
        options: dict[str, Any] = {"lr": 0.1}
        if rule != "sgd":
            options["eps"] = 1e-8
        if rule == "adam":
            options["betas"] = 0.9, 0.999
        tables = {"sgd": 1, "adagrad": 2, "adam": 3}[rule]
        step = torch.tensor(float(number), dtype=torch.float64, device=DEVICE)
        of_adam: dict[str, Any] = {"step": step} if rule == "adam" else {}
        summed = gradient._indices()[0], gradient._values()
        getattr(updates, rule)(*ours[:tables], *summed, **options, **of_adam)
        coalesced = gradient.coalesce()
        summed = coalesced.indices()[0], coalesced.values()
        of_adam = {"step": number} if rule == "adam" else {}
        unwrap(getattr(plain, rule))(*theirs[:tables], *summed, **options, **of_adam)
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    for our, their in zip(ours, theirs, strict=True):
        assert_close(our, their, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("numbers", [1, 1024, 1500])
def test_adagrad_of_all_rows_is_torchs(numbers: int) -> None:
    from softmax_bench.ops.cuda.updates import adagrad

    ours, theirs = torch.ones(numbers, device=DEVICE), nn.Parameter(torch.ones(numbers))
    total, rule = torch.zeros(numbers, device=DEVICE), torch.optim.Adagrad([theirs], lr=0.1)
    for _ in range(3):
        gradient = torch.randn(numbers, device=DEVICE)
        adagrad(ours, total, None, gradient, lr=0.1, eps=1e-10)
        theirs.grad = gradient.cpu()
        rule.step()
    assert_close(ours.cpu(), theirs.detach())


def test_ids_outside_the_parameter_change_nothing() -> None:
    from softmax_bench.ops.cuda.rows import with_count
    from softmax_bench.ops.cuda.updates import sgd

    memory = torch.zeros(30, device=DEVICE)
    weight, values = memory[10:20].view(5, 2), torch.ones(3, 2, device=DEVICE)
    ids = torch.tensor([-1, 5, 2**40], device=DEVICE)
    with_count(ids, values, 5, torch.tensor([3], dtype=torch.int32, device=DEVICE))
    sgd(weight, ids, values, lr=1.0)
    assert not memory.any()
