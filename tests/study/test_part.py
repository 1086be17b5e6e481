"""Evaluation in the course of training costs a share of it, whatever the vocabulary."""

from __future__ import annotations

import msgspec
import pytest

from softmax_bench.corpora import load_corpus
from softmax_bench.records.frames import frames
from softmax_bench.report.tables.selection import best_trials
from softmax_bench.study.trials.part import SHARE, affordable_tokens
from softmax_bench.study.trials.train import train_trial
from tests.records import train_record

TRIAL = msgspec.structs.replace(
    train_record("full", 200, 100.0).trial,
    encoder="rnn", hidden_size=16, embedding_size=16, optimizer="adam", clip_norm=1.0,
    batch_size=5, bptt=4, max_tokens=1000, threads=1,
)  # fmt: skip


@pytest.mark.parametrize("size", [10, 1000, 10**6])
@pytest.mark.parametrize("tokens", [10**6, 10**8])
def test_products_of_evaluation_are_a_share_of_those_of_training(size: int, tokens: int) -> None:
    trial = msgspec.structs.replace(TRIAL, vocab_size=size, max_tokens=tokens)
    evaluated = affordable_tokens(trial, 512) * (512 + size * 16)
    training = tokens * 3 * (512 + 1024 * 16)
    assert evaluated == pytest.approx(max(SHARE * training, 5e9), rel=0.02)


def test_final_figures_are_of_the_whole_text_and_tuning_of_a_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = load_corpus("synthetic", vocab_size=200, seed=0)
    monkeypatch.setattr("softmax_bench.study.trials.part._LEAST_PRODUCTS", 1e6)
    final = train_trial(TRIAL, text).result
    tuned = train_trial(msgspec.structs.replace(TRIAL, tuning=True), text)
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
