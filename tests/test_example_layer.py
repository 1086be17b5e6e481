"""A layer of somebody else, from its package to the report, without a line of ours changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from softmax_bench import load_results

EXAMPLE = Path(__file__).parent / "example_layer"
CHECK = """
import torch
from softmax_bench import create_layer, layer_names
from softmax_bench.layers import parse_spec
from softmax_bench.testing import check_output_layer

assert "bottleneck" in layer_names()
layer = create_layer("bottleneck(rank=3)", 8, 50)
assert layer.softmax.weight.shape == (50, 3)
check_output_layer(parse_spec("bottleneck")[0], sizes=(1, 17))

assert layer.traceable
compiled = torch.compile(layer, backend="eager", fullgraph=True)
hidden, target = torch.randn(4, 8), torch.randint(50, (4,))
torch.testing.assert_close(compiled(hidden, target), layer(hidden, target))
"""

Python = Callable[..., str]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Runs this Python where the example is installed besides, and returns what it prints."""
    folder = tmp_path_factory.mktemp("example")
    source, installed = folder / "source", folder / "installed"
    shutil.copytree(EXAMPLE, source)  # building leaves files behind
    paths = [str(installed), str(Path(__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}

    def _python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    _python("-m", "pip", "install", *offline, "--target", str(installed), str(source))
    return _python


def test_it_is_listed_with_its_package(python: Python) -> None:
    listed = python("-m", "softmax_bench.cli", "layers")
    assert "bottleneck" in listed
    assert "from bottleneck-softmax 1.0" in listed


def test_it_is_built_by_name_and_keeps_the_contract(python: Python) -> None:
    python("-c", CHECK)


def test_it_is_timed_and_reported(python: Python, tmp_path: Path) -> None:
    names = ["bottleneck", "bottleneck_softmax:BottleneckSoftmax(rank=2)"]
    python(
        "-m", "softmax_bench.cli", "time", "--layers", ",".join(names), "--vocab-sizes", "1000",
        "--hidden-size", "8", "--num-tokens", "10", "--time-budget", "0.1", "--threads", "1",
        "--out", str(tmp_path),
    )  # fmt: skip
    speed = load_results(tmp_path).speed
    assert set(speed["layer"]) == set(names)
    assert (speed["memory_activations"] > 0).all()
    page = (tmp_path / "report" / "index.html").read_text()
    assert all(name in page for name in names)
