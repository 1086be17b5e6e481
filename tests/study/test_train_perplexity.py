"""Exact perplexity of the text that was trained on, beside that of the test text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softmax_bench.corpora import load_corpus
from softmax_bench.corpora.states import load_states
from softmax_bench.lm import make_streams
from softmax_bench.records.frames import frames
from softmax_bench.records.trial import TrainTrial
from softmax_bench.study.trials.hidden_states import train_on_states
from softmax_bench.study.trials.train import train_trial
from tests.records import train_record


def a_trial(size: int, **fields: Any) -> TrainTrial:
    known = {
        "encoder": "rnn", "hidden_size": 16, "embedding_size": 16, "optimizer": "adam",
        "clip_norm": 1.0, "batch_size": 5, "bptt": 4, "max_tokens": 40, "threads": 1,
    }  # fmt: skip
    return train_record("full", size, 100.0, 0.02, **known | fields).trial


@pytest.mark.parametrize(
    ("trained", "steps"), [(40, 8), (41, 9), (10**6, 20)], ids=["some", "more", "longer than test"]
)
def test_it_is_of_the_beginning_of_each_stream(trained: int, steps: int) -> None:
    text = load_corpus("synthetic", vocab_size=50, seed=0)
    text = replace(text, train=np.arange(1000, dtype=np.int32), test=text.test[:100])
    seen = make_streams(text.train, 5, 0).part(min(trained, len(text.test)))
    inputs, targets = (torch.cat(parts) for parts in zip(*seen.windows(3), strict=True))
    assert inputs[:, 1].tolist() == [199, *range(200, 199 + steps)], "what stands before is known"
    assert targets.T.flatten().tolist() == [
        200 * stream + step for stream in range(5) for step in range(steps)
    ]


def test_it_is_low_where_a_text_was_learned_by_heart() -> None:
    text = load_corpus("synthetic", vocab_size=50, seed=0)
    text = replace(text, train=text.train[:200])
    record = train_trial(a_trial(text.vocab_size, max_tokens=20_000), text)
    seen, test = record.result.train_perplexity, record.result.test
    assert seen is not None
    assert test is not None
    assert 1 < seen < test.perplexity / 3
    assert frames([record]).train["train_perplexity"].tolist() == [seen]


def test_it_is_low_where_labels_were_learned_by_heart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "h.npy", rng.normal(size=(60, 64)))
    np.save(tmp_path / "t.npy", rng.integers(6, size=60))
    states = load_states(tmp_path / "h.npy", tmp_path / "t.npy")
    trial = a_trial(6, encoder="given", hidden_size=64, max_tokens=4000)
    result = train_on_states(trial, states).result
    assert result.train_perplexity is not None
    assert result.test is not None
    assert 1 < result.train_perplexity < result.test.perplexity / 3
