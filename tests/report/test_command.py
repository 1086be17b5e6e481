from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from softmax_bench import load_results
from softmax_bench.cli import main
from softmax_bench.report.command import commands


def _call(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", words)
    with suppress(SystemExit):
        main()


@pytest.mark.parametrize(
    "command",
    [
        "run TEXT --layers 'full,nce(num_samples=2, shared=False)' --vocab-sizes 6 --max-tokens 60 "
        "--tune-tokens 30 --learning-rates 0.1,0.25 --hidden-size 4 --batch-size 4 --bptt 5 "
        "--threads 1 --tied --num-seeds 2 --seed 3 --dropout 0.1",
        "time --layers full,sampled(num_samples=3) --vocab-sizes 10 --num-tokens 10 "
        "--hidden-size 4 --threads 1 --optimizer sgd",
    ],
    ids=["run", "time"],
)
def test_the_command_makes_the_same_trials(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is left to do when it is given for the same store."""
    text = tmp_path / "TEXT"
    text.mkdir()
    for split in ("train", "valid", "test"):
        (text / f"{split}.txt").write_text("".join(f"w{i % 7} w{i % 5} x\n" for i in range(60)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("softmax_bench.report.write_report", lambda results, out: results)
    out = ["--out", "store", "--time-budget", "0.05"]
    _call(monkeypatch, ["softmax-bench", *shlex.split(command), *out])
    before = sorted(path.name for path in Path("store").glob("*.json"))
    (again,) = commands(load_results("store"))
    _call(monkeypatch, [*shlex.split(again), *out])
    assert sorted(path.name for path in Path("store").glob("*.json")) == before
    printed = capsys.readouterr().out
    assert "done before" in printed
