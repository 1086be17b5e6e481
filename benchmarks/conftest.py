"""Add the machine description of this project's records to pytest-benchmark's files."""

from __future__ import annotations

from typing import Any

from softmax_bench.measure import describe_environment


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Add machine and versions, so that ``softmax-bench compare`` recognises different ones."""
    machine_info["softmax_bench"] = describe_environment()
