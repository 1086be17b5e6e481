"""The examples run, at small size, and show what they are to show."""

from __future__ import annotations

import math
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from softmax_bench import FullSoftmax
from softmax_bench.classes.tree import Tree
from softmax_bench.corpora.states import load_states

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


def test_users_and_items_are_an_example_of_hidden_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The truth that it prints is that of a model made of the items' own vectors."""
    arguments = ["--items", "50", "--examples", "3000", "--size", "4", "--out", str(tmp_path)]
    printed = run("make_interactions.py", arguments, monkeypatch, capsys)
    states = load_states(tmp_path / "users.npy", tmp_path / "items.npy")
    layer = FullSoftmax(4, states.vocab_size, class_counts=states.class_counts)
    users, items = torch.tensor(np.array(states.hidden)), torch.tensor(np.array(states.targets))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = layer(users, items)
        loss.backward()
        optimizer.step()
    (truth,) = (float(found) for found in re.findall(r"perplexity ([\d.]+)", printed))
    trained = math.exp(loss.item())
    assert truth == pytest.approx(trained, rel=0.15)  # and the noise costs a little
    assert truth < 0.7 * math.exp(FullSoftmax(4, 50)(users, items).item())


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
    with pytest.raises(SystemExit, match="0"):  # a typer program ends so
        run("cluster_words.py", ["synthetic", "150", file], monkeypatch, capsys)
    assert Tree.load(file).num_classes == 150


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["cluster_words.py", "no/such/text", "99", "tree.npy"], "no text at no/such/text"),
        (["cluster_words.py", "synthetic", "99", "file/tree.npy"], "File exists: 'file'"),
        (["cluster_words.py", "synthetic", "99", "tree.npy", "0"], "greater than or equal to 1"),
        (["hugging_face.py", "--steps", "0"], "--classes and --steps must be at least 1"),
        (["lightning_module.py", "--steps", "0"], "--classes and --steps must be at least 1"),
        (["make_interactions.py", "--items", "5"], "--items must be at least 10"),
        (["make_interactions.py", "--out", "file"], "File exists: 'file'"),
        (["read_results.py", "no/such/results"], "no results at no/such/results"),
        (["swap_layer.py", "--classes", "0"], "--classes and --steps must be at least 1"),
        (["train_parallel.py"], "start the program with torchrun"),
    ],
)
def test_mistakes_end_with_a_message_and_touch_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    Path("file").touch()
    with pytest.raises(SystemExit, match="2"):
        run(command[0], command[1:], monkeypatch, capsys)
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_results_without_trainings_are_said_to_have_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = EXAMPLES.parent / "results" / "fidelity"
    printed = run("read_results.py", [str(results)], monkeypatch, capsys)
    assert "neither trained models nor times" in printed


def test_every_example_is_tested() -> None:
    here = {
        "cluster_words.py",
        "hugging_face.py",
        "lightning_module.py",
        "make_interactions.py",
        "read_results.py",
        "swap_layer.py",
    }
    on_a_page = {"train_parallel.py"}  # docs/parallel.md, whose commands are run
    assert {path.name for path in EXAMPLES.glob("*.py")} == here | on_a_page
