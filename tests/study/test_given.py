"""Layers trained on given hidden states, against what is known of the data."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from softmax_bench.corpora.states import States, load_states
from softmax_bench.layers import FullSoftmax
from softmax_bench.lm import Checkpoint, DivergedError
from softmax_bench.records.frames import frames
from softmax_bench.records.trial import TrainTrial
from softmax_bench.report.show.command import commands
from softmax_bench.study.jobs.job import SpeedJob, TrainJob
from softmax_bench.study.plan.estimate import memory_of
from softmax_bench.study.plan.grid import plan_given
from softmax_bench.study.study import Study
from softmax_bench.study.texts import TextSummary, load_given, summarise_states
from softmax_bench.study.trials.hidden_states import _ranking, train_on_states
from softmax_bench.study.trials.train import make_checkpoint

CLASSES = 12


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Classes drawn from the softmax of known scores: no layer can do better than its entropy."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(4000, 5, generator=generator)
    rows = 1.5 * torch.randn(CLASSES, 5, generator=generator)
    log_p = (hidden @ rows.t()).log_softmax(1)
    targets = log_p.exp().multinomial(1, generator=generator).squeeze(1)
    np.save(tmp_path / "h.npy", hidden.numpy())
    np.save(tmp_path / "t.npy", targets.numpy())
    np.save(tmp_path / "log_p.npy", log_p.numpy())
    return tmp_path / "h.npy", tmp_path / "t.npy"


def known(files: tuple[Path, Path], **study: Any) -> tuple[Study, TextSummary]:
    return summarise_states(Study(**study), *files, None)


def trials(files: tuple[Path, Path], **study: Any) -> list[TrainTrial]:
    steps = plan_given(*known(files, time_budget=0, threads=1, **study))({}, {})
    return [step.job.trial for step in steps if isinstance(step.job, TrainJob)]


def best_nats(states: States, folder: Path) -> float:
    places = states.split("test")
    log_p = np.load(folder / "log_p.npy")[places, states.targets[places]]
    return -float(log_p.mean())


@pytest.mark.parametrize("layer", ["full", "sampled(num_samples=12)"])
def test_layers_reach_the_source_of_the_data(files: tuple[Path, Path], layer: str) -> None:
    (trial,) = trials(
        files, layers=(layer,), max_tokens=(30_000,), batch_size=50, bptt=1, warmup_tokens=0
    )
    assert (trial.encoder, trial.hidden_size) == ("given", 5)
    states = load_states(*files)
    told: list[int] = []
    record = train_on_states(trial, states, on_step=told.append)
    assert sum(told) == record.result.train_tokens == 30_000
    test = record.result.test
    assert test is not None
    assert test.tokens == 400
    assert test.nats == pytest.approx(best_nats(states, files[0].parent), abs=0.06)
    assert test.perplexity == pytest.approx(math.exp(test.nats))
    assert test.top1 is not None
    assert test.top10 is not None
    assert test.ndcg10 is not None
    assert 0.3 < test.top1 < test.ndcg10 < test.top10 <= 1
    assert len(record.result.curve) == 6


def test_an_interrupted_trial_ends_like_one_that_was_not(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trial,) = trials(
        files, layers=("midx(refresh=4)",), max_tokens=(9000,), batch_size=300, bptt=1,
        optimizer="adam",
    )  # fmt: skip
    states = load_states(*files)
    uninterrupted = train_on_states(trial, states).result
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)

    def stop(examples: int) -> None:
        if next(left) == 0:
            raise KeyboardInterrupt

    for steps in (16, 9):  # of thirty, in three passes
        left = iter(range(steps, -1, -1))
        with pytest.raises(KeyboardInterrupt):
            train_on_states(
                trial, states, checkpoint=make_checkpoint(trial, tmp_path / "c"), on_step=stop
            )
        torch.rand(3)
    result = train_on_states(
        trial, states, checkpoint=make_checkpoint(trial, tmp_path / "c")
    ).result
    assert result.resumed == 2
    assert (result.valid, result.test) == (uninterrupted.valid, uninterrupted.test)
    assert [point.train_loss for point in result.curve] == [
        point.train_loss for point in uninterrupted.curve
    ]


def test_the_same_trial_gives_the_same_result(files: tuple[Path, Path]) -> None:
    (trial,) = trials(files, layers=("sampled(num_samples=4)",), max_tokens=(1000,))
    once, again = (train_on_states(trial, load_states(*files)).result.test for _ in range(2))
    assert once == again
    other = msgspec.structs.replace(trial, seed=1)
    assert train_on_states(other, load_states(*files)).result.test != once


def test_divergence_is_told(files: tuple[Path, Path]) -> None:
    (trial,) = trials(
        files, layers=("full",), learning_rates=(3e38,), optimizer="adagrad", clip_norm=1e38
    )
    with pytest.raises(DivergedError, match="training diverged after"):
        train_on_states(trial, load_states(*files))


def test_the_plan_trains_and_times_with_the_datas_own_counts(files: tuple[Path, Path]) -> None:
    study, text = known(files, layers=("full", "nce"), learning_rates=(0.1, 0.2))
    jobs = [step.job for step in plan_given(study, text)({}, {})]
    assert sum(isinstance(job, TrainJob) for job in jobs) == 2 * (2 + 1)
    (timing,) = [job for job in jobs if isinstance(job, SpeedJob)]
    assert timing.text is not None
    assert {trial.corpus_sha256 for trial in timing.trials} == {text.sha256}
    assert {(trial.vocab_size, trial.hidden_size) for trial in timing.trials} == {(CLASSES, 5)}
    assert load_given(timing.text, text.sha256).vocab_size == CLASSES


def test_arrays_that_change_meanwhile_are_noticed(files: tuple[Path, Path]) -> None:
    _, text = known(files)
    np.save(files[1], np.zeros(4000, int))
    with pytest.raises(ValueError, match="is not what it was"):
        load_given(text.source, text.sha256)


def test_the_report_names_the_command(files: tuple[Path, Path]) -> None:
    (trial,) = trials(files, layers=("full",), max_tokens=(400,))
    (command,) = commands(frames([train_on_states(trial, load_states(*files))]))
    assert "run --hidden h.npy --targets t.npy --layers full --vocab-sizes 12" in command
    assert "encoders" not in command
    assert "hidden_size" not in command


@pytest.mark.parametrize(
    ("hidden", "targets", "study", "sizes", "message"),
    [
        ("h.npy", None, {}, None, "--hidden and --targets go together"),
        ("h.npy", "t.npy", {"tied": True}, None, "no embedding to tie"),
        ("h.npy", "t.npy", {}, (12, 13), "a single number of classes"),
        ("h.npy", "t.npy", {}, ("all",), "a single number of classes"),
        ("h.npy", "t.npy", {}, (3,), "ids go from 0 to 2"),
    ],
)
def test_what_given_states_cannot_have(
    files: tuple[Path, Path],
    hidden: str,
    targets: str | None,
    study: dict[str, Any],
    sizes: tuple[int | str, ...] | None,
    message: str,
) -> None:
    folder = files[0].parent
    with pytest.raises(ValueError, match=message):
        summarise_states(
            Study(**study), folder / hidden, None if targets is None else folder / targets, sizes
        )


def test_the_memory_of_a_trial_has_no_word_vectors(files: tuple[Path, Path]) -> None:
    study, text = known(files, layers=("full",), time_budget=0, threads=1)
    (step,) = plan_given(study, replace(text, vocab_size=10**6))({}, {})
    assert isinstance(step.job, TrainJob)
    embedded = msgspec.structs.replace(step.job.trial, encoder="lstm")
    difference = memory_of(msgspec.structs.replace(step.job, trial=embedded)) - memory_of(step.job)
    vectors = 2 * 4 * 10**6 * 5  # and Adagrad's state
    assert vectors < difference < 1.01 * vectors


def test_ndcg_counts_the_place_of_the_right_class() -> None:
    layer = FullSoftmax(1, 12, dtype=torch.float64)
    with torch.no_grad():  # class 0 is the most probable, class 1 the next, and so on
        layer.weight.copy_(torch.arange(12, 0, -1).unsqueeze(1))
    targets = np.array([0, 1, 9, 10])
    states = States("x", 12, "", np.ones((4, 1)), targets)
    one, ten, gain = _ranking(layer, states, np.arange(4))
    assert (one, ten) == (0.25, 0.75)
    assert gain == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(11)) / 4)
