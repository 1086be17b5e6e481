from __future__ import annotations

from pathlib import Path

import pytest

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.parallel import cost
from softmax_bench.parallel.plan import Device, Work, markdown, plan, with_table

PAGE = Path(__file__).parents[2] / "docs" / "parallel.md"


def test_the_page_is_what_the_code_says() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page, markdown(Device())) == page, (
        "the cost model has changed: python -m softmax_bench.parallel.plan --page docs/parallel.md"
    )


def test_a_page_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(SoftmaxBenchError, match="must have the lines"):
        with_table("# A page", "")


@pytest.mark.parametrize("work", [Work(0, 1, None), Work(1, 0, None), Work(1, 1, -3)])
def test_sizes_that_are_none_are_refused(work: Work) -> None:
    with pytest.raises(SoftmaxBenchError, match="must be positive"):
        plan(work, Device())


def test_a_step_worked_out_by_hand() -> None:
    # 1,000 classes on 4 devices: 250 rows of 8 numbers and an offset; 4 x 5 targets.
    device = Device(1e9, flops=10.0, memory_bandwidth=4.0, network_bandwidth=2.0, latency=3.0)
    planned = plan(Work(1000, 4, None, tokens=5, width=8, state=2), device)
    assert planned.parameters == planned.gradients == 4 * 250 * 9
    assert planned.optimizer == 2 * planned.parameters
    assert planned.activations == 4 * (2 * 20 * 8 + 20 * 250)
    assert planned.compute_seconds == 6 * 20 * 250 * 8 / 10
    assert planned.memory_seconds == 4 * (3 * 250 * 8 + (3 + 2 * 2) * 250 * 9) / 4
    hidden = 3 * (5 * 8 * 4) + 3 / 4 * (20 * 8 * 4)  # gathered, and their gradients scattered
    of_tokens = 3 * 5 * (8 + 4) + 2 * 3 / 4 * 3 * 20 * 4  # ids and weights; three sums
    counts = 2 * 3 / 4 * (4 + 8)
    assert planned.network_seconds == (hidden + of_tokens + counts) / 2 + 8 * 3
    assert planned.bound == "compute"
    assert planned.seconds == planned.compute_seconds


def test_one_device_sends_nothing() -> None:
    step = cost.Step(tokens=9, rows=7, width=3, processes=1, divided=True)
    assert cost.softmax_traffic(step, 7).bytes == 0
    assert plan(Work(7, 1, 3), Device()).network_seconds == 0
