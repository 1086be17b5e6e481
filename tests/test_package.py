"""The wheel and the sdist, built from the sources and installed where nothing else of them is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import softmax_bench

ROOT = Path(__file__).parents[1]
BUILT = ("pyproject.toml", "README.md", "LICENSE", "softmax_bench")
USE = """
import softmax_bench, sys
from pathlib import Path
print(softmax_bench.__version__, Path(softmax_bench.__file__).parents[1])
assert "torch" not in sys.modules
softmax_bench.create_layer("nce", 8, 50)
"""


def run(*command: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_version_is_said_once() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {softmax_bench.__version__}\n" in citation
    assert f"\n## {softmax_bench.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow
def test_a_wheel_of_the_sdist_works_alone(tmp_path: Path) -> None:
    source, built, installed = (tmp_path / name for name in ("source", "built", "installed"))
    source.mkdir()
    for name in BUILT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    run("-c", f"from setuptools.build_meta import build_sdist; build_sdist({str(built)!r})",
        folder=source)  # fmt: skip
    (sdist,) = built.glob("softmax_bench-*.tar.gz")
    with tarfile.open(sdist) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    run("-m", "pip", "wheel", *offline, "--wheel-dir", str(built), str(unpacked), folder=tmp_path)
    (wheel,) = built.glob("*.whl")
    files = set(zipfile.ZipFile(wheel).namelist())
    assert "softmax_bench/py.typed" in files
    assert all(name.startswith("softmax_bench") for name in files)
    missing = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "softmax_bench").rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    } - files
    assert not missing

    run("-m", "pip", "install", *offline, "--target", str(installed), str(wheel), folder=tmp_path)
    alone = {"PYTHONPATH": str(installed)}
    version, place = run("-c", USE, folder=tmp_path, **alone).split()
    assert (version, place) == (softmax_bench.__version__, str(installed))
    command = re.sub(r"\s+", " ", run(
        "-m", "softmax_bench.cli", "run", "quick", "--layers", "nce", "--vocab-sizes", "50",
        "--max-tokens", "500", "--set", "time_budget=0.1", "--set", "hidden_size=8",
        folder=tmp_path, **alone,
    ))  # fmt: skip
    assert "nce" in command
    assert (tmp_path / "runs" / "quick" / "report" / "index.html").exists()
