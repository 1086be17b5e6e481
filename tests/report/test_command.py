from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from softmax_bench import load_results
from softmax_bench.cli import main
from softmax_bench.records.frames import frames
from softmax_bench.records.store import write_record
from softmax_bench.records.trial import NgramTrial, SpeedTrial, TrainTrial, trial_id
from softmax_bench.report.show.command import commands
from softmax_bench.study.jobs.job import trials_of
from softmax_bench.study.plan.plan import Plan
from tests.records import ngram_record, speed_record, train_record


@pytest.fixture
def plan_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Plan]:
    """The plan that a command would run."""

    def plan_of(command: str) -> Plan:
        caught: list[Plan] = []
        for module in ("run", "time_layers"):
            monkeypatch.setattr(
                sys.modules[f"softmax_bench.cli.{module}"],
                "run_plan",
                lambda plan, *_, **__: caught.append(plan),
            )
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        return caught[0]

    return plan_of


@pytest.mark.parametrize(
    "command",
    [
        "run --corpus TEXT --layers 'full,nce(num_samples=2, shared=False)' --vocab-sizes 6 "
        "--max-tokens 60 --learning-rates 0.1,0.25 --set tune_tokens=30 --set hidden_size=4 "
        "--set batch_size=4 --set bptt=5 --set threads=1 --set tied=true --set seeds=3,4 "
        "--set dropout=0.1 --set encoders=gru",
        "time --layers full,sampled(num_samples=3) --vocab-sizes 10 --num-tokens 10 "
        "--hidden-size 4 --threads 1 --optimizer sgd",
    ],
    ids=["run", "time"],
)
def test_the_command_makes_the_same_trials(
    command: str,
    plan_of: Callable[[str], Plan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is left to do when it is given for the same store."""
    text = tmp_path / "TEXT"
    text.mkdir()
    for split in ("train", "valid", "test"):
        (text / f"{split}.txt").write_text("".join(f"w{i % 7} w{i % 5} x\n" for i in range(60)))
    monkeypatch.chdir(tmp_path)
    trials = {
        trial_id(trial): trial
        for step in plan_of(f"softmax-bench {command}")({}, ())
        for trial in trials_of(step.job)
    }
    for identity, trial in trials.items():
        if isinstance(trial, TrainTrial):
            made = train_record(trial.layer, trial.vocab_size, 5.0)
            write_record(Path("store"), msgspec.structs.replace(made, id=identity, trial=trial))
        elif isinstance(trial, SpeedTrial):
            timed = speed_record(trial.layer, trial.vocab_size, 1.0)
            write_record(Path("store"), msgspec.structs.replace(timed, id=identity, trial=trial))
        elif isinstance(trial, NgramTrial):
            counted = ngram_record(trial.vocab_size, 5.0)
            write_record(Path("store"), msgspec.structs.replace(counted, id=identity, trial=trial))
    (again,) = commands(load_results("store"))
    steps = plan_of(again)({}, ())
    assert {trial_id(t) for step in steps for t in trials_of(step.job)} == set(trials)


def test_what_a_search_found_is_repeated_layer_by_layer() -> None:
    found = [
        train_record("full", 1000, 100.0, 0.12),
        train_record("nce(num_samples=9)", 1000, 90.0, 0.034, tuned="power=0.7"),
    ]
    full, nce = commands(frames(found))
    assert "--layers full --vocab-sizes 1000 --learning-rates 0.12 " in full
    assert "--layers 'nce(power=0.7, num_samples=9)'" in nce
    assert "--learning-rates 0.034 " in nce
