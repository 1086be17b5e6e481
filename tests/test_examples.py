"""The examples run, at small size, and show what they are to show."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from softmax_bench.classes.tree import Tree

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(
    name: str,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


def test_swapping_a_layer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run("swap_layer.py", ["--classes", "99", "--steps", "60"], monkeypatch, capsys)
    before, after = (float(found) for found in re.findall(r"perplexity ([\d.]+)", printed))
    assert before < 50
    assert after < 50


@pytest.mark.filterwarnings("ignore")  # hints of a trainer, such as on its data loader
@pytest.mark.parametrize(
    ("name", "library"),
    [("hugging_face.py", "transformers"), ("lightning_module.py", "lightning")],
)
def test_heads_in_other_peoples_models(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(library)
    printed = run(name, ["--classes", "99", "--steps", "60"], monkeypatch, capsys)
    before, after = (float(found) for found in re.findall(r"perplexity \w+: ([\d.]+)", printed))
    assert before > 50
    assert after < 10


def test_reading_results(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run("read_results.py", [str(store)], monkeypatch, capsys)
    assert "nce(num_samples=25)" in printed
    assert "optimizer" in printed


def test_clustering_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "tree.npy")
    run("cluster_words.py", ["synthetic", "150", file], monkeypatch, capsys)
    assert Tree.load(file).num_classes == 150


def test_every_example_is_tested() -> None:
    here = {
        "cluster_words.py",
        "hugging_face.py",
        "lightning_module.py",
        "read_results.py",
        "swap_layer.py",
    }
    on_a_page = {"train_parallel.py"}  # docs/parallel.md, whose commands are run
    assert {path.name for path in EXAMPLES.glob("*.py")} == here | on_a_page
