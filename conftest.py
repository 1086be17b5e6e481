"""One of two folders is collected: benchmarks with ``--benchmark-only``, else the tests.

The options of the benchmarks are declared here because pytest looks for options before it knows
which folders it will collect.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from softmax_bench.study.jobs.calm import prepare_threads

if "--benchmark-only" in sys.argv:  # before anything imports torch
    prepare_threads()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--layers`` and ``--vocab-sizes``."""
    group = parser.getgroup("softmax-bench")
    group.addoption(
        "--layers",
        help="output layers to time, separated by commas (default: all, "
        "for example 'full,sampled(num_samples=256)')",
    )
    group.addoption(
        "--vocab-sizes",
        default="1000,10000,100000,1000000",
        help="vocabulary sizes, separated by commas (default: %(default)s)",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the benchmarks, or everything else."""
    benchmarks = config.rootpath / "benchmarks"
    tests = config.rootpath / "tests"
    left_out = tests if config.getoption("benchmark_only") else benchmarks
    return True if collection_path.is_relative_to(left_out) else None
