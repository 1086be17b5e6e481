from __future__ import annotations

import pytest

import tests.parallel.checks
import tests.parallel.training  # noqa: F401 - both give their checks a name
from tests.parallel.processes import CHECKS, run_checks


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run_checks(tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("name", CHECKS)
def test_two_processes(name: str, outcomes: dict[str, str]) -> None:
    assert name in outcomes, "not run: a check before it failed"
    assert not outcomes[name], outcomes[name]
