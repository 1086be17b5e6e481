"""The machine's ceilings, and what is told of it."""

from __future__ import annotations

import pytest
import torch

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.measure import (
    describe_environment,
    gemm_rate,
    machine,
    memory_bandwidth,
    zipf_counts,
    zipf_targets,
)


def test_rates_are_work_over_median_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10**6))
    monkeypatch.setattr(machine, "clock", lambda device: 0.25 * next(ticks))
    assert gemm_rate(torch.float64, size=8) == 2 * 8**3 / 0.25
    assert memory_bandwidth(num_bytes=1000) == 2 * 1000 / 0.25


def test_real_rates_are_of_this_world() -> None:
    assert 1e7 < gemm_rate(size=128, seconds=0.05) < 1e15
    assert 1e7 < memory_bandwidth(num_bytes=1 << 22, seconds=0.05) < 1e14


def test_variables_tell_no_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/home/somebody/libjemalloc.so:/opt/x/libtcmalloc.so.4")
    monkeypatch.setenv("KMP_AFFINITY", "granularity=fine,compact,1,0")
    describe_environment.cache_clear()
    try:
        variables = describe_environment()["variables"]
    finally:
        describe_environment.cache_clear()
    assert variables["LD_PRELOAD"] == "libjemalloc.so:libtcmalloc.so.4"
    assert variables["KMP_AFFINITY"] == "granularity=fine,compact,1,0"


def test_zipf_needs_classes() -> None:
    with pytest.raises(SoftmaxBenchError, match="at least one class"):
        zipf_counts(0)
    with pytest.raises(SoftmaxBenchError, match="not 0 and 5"):
        zipf_targets(0, 5, seed=0)
