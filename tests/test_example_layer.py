"""docs/how-to/add-a-layer.md, followed step by step in an empty folder outside the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from softmax_bench import load_results

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "add-a-layer.md"
BLOCKS = re.findall(r"```(\S+)(?: (\S+))?\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after all steps, and what they printed."""
    folder = tmp_path_factory.mktemp("bottleneck")
    installed = tmp_path_factory.mktemp("installed")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (installed, ROOT))),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "COLUMNS": "200",
        # pip installs here, offline.
        "PIP_TARGET": str(installed),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it the other way round
    }
    printed = []
    for kind, file, text in BLOCKS:
        if kind == "{literalinclude}":
            shutil.copy(PAGE.parent / file, folder)
            continue
        command = ["bash", "-ec", text] if kind == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    return folder, "\n".join(printed)


def test_the_page_has_all_steps() -> None:
    assert [kind for kind, _, _ in BLOCKS] == [
        "{literalinclude}", "{literalinclude}", "sh", "python", "sh", "sh",
    ]  # fmt: skip


def test_the_layer_is_short() -> None:
    lines = (ROOT / "tests" / "example_layer" / "bottleneck_softmax.py").read_text().splitlines()
    assert len(lines) < 60


@pytest.mark.slow
def test_it_is_listed_with_its_package_and_built_by_name(followed: tuple[Path, str]) -> None:
    _, printed = followed
    assert "from bottleneck-softmax 1.0" in printed
    assert "Linear(in_features=256, out_features=16, bias=False)" in printed


@pytest.mark.slow
def test_it_is_timed_and_reported(followed: tuple[Path, str]) -> None:
    folder, _ = followed
    for run, layers in (
        ("bottleneck", {"full", "bottleneck", "bottleneck(rank=16)"}),
        ("by-module", {"bottleneck_softmax:BottleneckSoftmax(rank=16)"}),
    ):
        speed = load_results(folder / "runs" / run).speed
        assert set(speed["layer"]) == layers
        assert (speed["memory_activations"] > 0).all()
        page = (folder / "runs" / run / "report" / "index.html").read_text()
        assert all(layer in page for layer in layers)
