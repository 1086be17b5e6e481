"""The rates that rooflines are drawn from."""

from __future__ import annotations

import pytest
import torch

from softmax_bench.measure import roofline


@pytest.mark.parametrize(("rate", "sizes"), [(1e12, [256, 2048]), (3e8, [256])])
def test_a_dtype_that_a_processor_emulates_is_measured_by_a_small_product(
    rate: float, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def rate_of(size: int, *_: object) -> float:
        measured.append(size)
        return rate

    monkeypatch.setattr(roofline, "_rate_of", rate_of)
    assert roofline._product_rate(torch.device("cpu"), torch.bfloat16) == rate
    assert measured == sizes
