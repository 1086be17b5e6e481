from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness import run_to_the_end, write_study


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small study."""
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def uninterrupted(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the study where nothing went wrong."""
    store = tmp_path_factory.mktemp("uninterrupted") / "store"
    run_to_the_end(study, store)
    return store
