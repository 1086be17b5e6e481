from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from softmax_bench.corpora import Corpus, load_corpus
from softmax_bench.lm import Checkpoint
from softmax_bench.records.trial import TrainTrial
from softmax_bench.study.trials import train as run
from softmax_bench.study.trials.train import make_checkpoint, train_trial
from tests.records import learned


class _KilledError(Exception):
    pass


@pytest.fixture
def text() -> Corpus:
    return load_corpus("synthetic", vocab_size=200, seed=0)


def a_trial(text: Corpus) -> TrainTrial:
    return TrainTrial(
        corpus=text.name, corpus_sha256=text.sha256, vocab_size=text.vocab_size,
        layer="midx(refresh=4)", encoder="lstm", embedding_size=5, hidden_size=6, num_layers=1,
        dropout=0.1, tied=False, optimizer="adam", learning_rate=0.01, clip_norm=1.0,
        batch_size=7, bptt=5, max_tokens=700, seed=3, threads=1, device="cpu", dtype="float32",
    )  # fmt: skip


def killed_after(steps: int) -> Callable[[int], None]:
    def on_step(tokens: int) -> None:
        nonlocal steps
        steps -= 1
        if steps < 0:
            raise _KilledError

    return on_step


def test_an_interrupted_trial_ends_like_one_that_was_not(
    text: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Short texts for evaluation: its length is of no interest here.
    monkeypatch.setattr(type(text), "split", lambda self, name: self.valid[:60])
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    trial, path = a_trial(text), tmp_path / "trial.safetensors"
    uninterrupted = train_trial(trial, text)
    assert uninterrupted.result.resumed == 0
    for steps in (9, 6):
        with pytest.raises(_KilledError):
            train_trial(
                trial, text, checkpoint=make_checkpoint(trial, path), on_step=killed_after(steps)
            )
        torch.rand(5)
    tokens: list[int] = []
    record = train_trial(
        trial, text, checkpoint=make_checkpoint(trial, path), on_step=tokens.append
    )
    assert record.result.resumed == 2
    assert learned(record) == learned(uninterrupted)
    assert sum(tokens) == record.result.train_tokens
    assert len(tokens) < 10

    # Neither the trial may differ nor the code.
    other = msgspec.structs.replace(trial, seed=4)
    train_trial(other, text, checkpoint=make_checkpoint(other, path))
    assert "was made with another trial;" in caplog.text
    monkeypatch.setattr(run, "code_version", lambda layer: "another")
    train_trial(trial, text, checkpoint=make_checkpoint(trial, path))
    assert "was made with another trial and another version of the code;" in caplog.text
