"""What the record of a trained model says of its evaluations, and of the machine meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from softmax_bench.corpora import load_corpus
from softmax_bench.corpora.states import load_states
from softmax_bench.lm import make_streams
from softmax_bench.measure import disturbance as watching
from softmax_bench.records.frames import frames
from softmax_bench.records.record import TrainRecord
from softmax_bench.records.trial import TrainTrial
from softmax_bench.report.tables.selection import best_trials
from softmax_bench.study.trials.hidden_states import train_on_states
from softmax_bench.study.trials.part import SHARE, affordable_tokens
from softmax_bench.study.trials.train import train_trial
from tests.records import train_record

Train = Callable[..., TrainRecord]


def a_trial(size: int, **fields: Any) -> TrainTrial:
    known = {
        "encoder": "rnn", "hidden_size": 16, "embedding_size": 16, "optimizer": "adam",
        "clip_norm": 1.0, "batch_size": 5, "bptt": 4, "max_tokens": 40, "threads": 1,
    }  # fmt: skip
    return train_record("full", size, 100.0, 0.02, **known | fields).trial


@pytest.mark.parametrize("size", [10, 1000, 10**6])
@pytest.mark.parametrize("tokens", [10**6, 10**8])
def test_products_of_evaluation_are_a_share_of_those_of_training(size: int, tokens: int) -> None:
    trial = a_trial(size, max_tokens=tokens)
    evaluated = affordable_tokens(trial, 512) * (512 + size * 16)
    training = tokens * 3 * (512 + 1024 * 16)
    assert evaluated == pytest.approx(max(SHARE * training, 5e9), rel=0.02)


def test_final_figures_are_of_the_whole_text_and_tuning_of_a_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = load_corpus("synthetic", vocab_size=200, seed=0)
    monkeypatch.setattr("softmax_bench.study.trials.part._LEAST_PRODUCTS", 1e6)
    trial = a_trial(200, max_tokens=1000, learning_rate=0.1)
    final = train_trial(trial, text).result
    tuned = train_trial(msgspec.structs.replace(trial, tuning=True), text)
    assert tuned.result.test is None
    assert tuned.result.train_perplexity is None
    assert final.test is not None
    assert final.test.tokens == final.valid.tokens == 20_000
    assert final.curve_tokens is not None
    assert final.curve_tokens == tuned.result.curve_tokens
    assert 6 * final.curve_tokens == pytest.approx(tuned.result.valid.tokens, rel=0.1)
    assert tuned.result.valid.tokens < 10_000
    assert final.curve == [
        msgspec.structs.replace(point, seconds=own.seconds)
        for point, own in zip(tuned.result.curve, final.curve, strict=True)
    ]
    assert final.valid.perplexity == pytest.approx(tuned.result.valid.perplexity, rel=0.1)
    assert final.valid.perplexity == pytest.approx(final.curve[-1].valid_perplexity, rel=0.2)
    assert final.curve_seconds is not None
    assert final.final_seconds is not None
    assert best_trials(frames([tuned])).empty


@pytest.mark.parametrize(
    ("trained", "steps"), [(40, 8), (41, 9), (10**6, 20)], ids=["some", "more", "longer than test"]
)
def test_train_perplexity_is_of_the_beginning_of_each_stream(trained: int, steps: int) -> None:
    text = load_corpus("synthetic", vocab_size=50, seed=0)
    text = replace(text, train=np.arange(1000, dtype=np.int32), test=text.test[:100])
    seen = make_streams(text.train, 5, 0).part(min(trained, len(text.test)))
    inputs, targets = (torch.cat(parts) for parts in zip(*seen.windows(3), strict=True))
    assert inputs[:, 1].tolist() == [199, *range(200, 199 + steps)], "what stands before is known"
    assert targets.T.flatten().tolist() == [
        200 * stream + step for stream in range(5) for step in range(steps)
    ]


def test_train_perplexity_is_low_where_a_text_was_learned_by_heart() -> None:
    text = load_corpus("synthetic", vocab_size=50, seed=0)
    text = replace(text, train=text.train[:200])
    record = train_trial(a_trial(text.vocab_size, max_tokens=20_000), text)
    seen, test = record.result.train_perplexity, record.result.test
    assert seen is not None
    assert test is not None
    assert 1 < seen < test.perplexity / 3
    assert frames([record]).train["train_perplexity"].tolist() == [seen]


def test_train_perplexity_is_low_where_labels_were_learned_by_heart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "h.npy", rng.normal(size=(60, 64)))
    np.save(tmp_path / "t.npy", rng.integers(6, size=60))
    states = load_states(tmp_path / "h.npy", tmp_path / "t.npy")
    trial = a_trial(6, encoder="given", hidden_size=64, max_tokens=4000)
    result = train_on_states(trial, states).result
    assert result.train_perplexity is not None
    assert result.test is not None
    assert 1 < result.train_perplexity < result.test.perplexity / 3


def on_a_text(folder: Path) -> Train:
    text = load_corpus("synthetic", vocab_size=50, seed=0)
    trial = a_trial(text.vocab_size)
    return lambda **calls: train_trial(trial, text, **calls)


def on_given_states(folder: Path) -> Train:
    rng = np.random.default_rng(0)
    np.save(folder / "h.npy", rng.normal(size=(300, 4)))
    np.save(folder / "t.npy", np.arange(300) % 6)
    states = load_states(folder / "h.npy", folder / "t.npy")
    trial = a_trial(6, encoder="given", hidden_size=4, embedding_size=4)
    return lambda **calls: train_on_states(trial, states, **calls)


@pytest.mark.parametrize("prepare", [on_a_text, on_given_states])
def test_the_machine_is_watched_from_the_first_step_to_the_last_evaluation(
    prepare: Callable[[Path], Train], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = prepare(tmp_path)
    happened: list[str] = []

    class Reading:
        """Counters of two cores: 10 s later others have worked for 4 s and the trial for 11 s."""

        def __init__(self) -> None:
            later = len(happened) > 0
            happened.append("reading")
            self.wall, self.cores = 10.0 * later, 2
            self.busy, self.own = 15.0 * later, 11.0 * later
            self.stolen, self.switches, self.frequency = 0.0, 0, 3000.0

    monkeypatch.setattr(watching, "_Reading", Reading)
    record = train(
        on_step=lambda tokens: happened.append("step"),
        on_evaluation=lambda progress: happened.append("evaluation"),
    )
    assert happened[:2] == ["reading", "step"]
    assert happened[-2:] == ["evaluation", "reading"]
    assert happened.count("reading") == 2
    assert record.result.disturbance is not None
    assert record.result.disturbance.reasons == ["other processes took 20% of the processor"]
    assert frames([record]).train["disturbance_foreign"].tolist() == pytest.approx([0.2])
