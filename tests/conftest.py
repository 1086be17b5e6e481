"""Runtime shape checks, reproducible randomness, and where real corpora lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import settings

from tests.records import fill_store

# Shapes in annotations are checked in the tests only: in use they cost nothing. Output layers
# check what they are given themselves, with messages for people; Triton reads the source of the
# kernels in ops/cuda, and torch.compile traces ops/objective, where nothing may be wrapped.
_checked = jaxtyping.jaxtyped


def _checked_once(**how: Any) -> Any:
    """Functions within functions are left out: each call of the outer one would compile a check."""
    return lambda made: made if "<locals>" in made.__qualname__ else _checked(**how)(made)


jaxtyping.jaxtyped = _checked_once  # type: ignore[assignment]
_OPS = Path(__file__).parents[1] / "softmax_bench" / "ops"
jaxtyping.install_import_hook(
    [
        *(f"softmax_bench.ops.{f.stem}" for f in _OPS.glob("*.py") if f.stem != "objective"),
        "softmax_bench.ops.cpu",
        "softmax_bench.lm",
    ],
    "beartype.beartype",
)

settings.register_profile("default", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def corpora_folder() -> Path:
    """Folder of real corpora; tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("SOFTMAX_BENCH_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no corpora at {folder}; set SOFTMAX_BENCH_DATA to test on real text")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Four layers at three vocabulary sizes."""
    folder = tmp_path / "store"
    fill_store(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept between runs: not that of the person who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTMAX_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
