"""What pytest-benchmark's files say of the machine: the same as this project's records."""

from __future__ import annotations

from typing import Any

from softmax_bench.measure import describe_environment


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Add the machine and the versions, so that ``softmax-bench compare`` can tell unlike ones."""
    machine_info["softmax_bench"] = describe_environment()
