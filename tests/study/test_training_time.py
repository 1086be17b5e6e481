"""Seconds of training, from the tokens and the steps that were timed on a quiet machine."""

from __future__ import annotations

import msgspec
import pytest

from softmax_bench.records.frames import frames
from softmax_bench.records.record import SpeedRecord
from softmax_bench.records.trial import GIVEN
from tests.records import disturbed, speed_record, timing, train_record

AS_TRAINED = {"clip_norm": 5.0, "encoder": "lstm", "bptt": 10}


def with_encoder(record: SpeedRecord, seconds: float) -> SpeedRecord:
    phases = record.result.phases | {"encoder": timing(seconds)}
    return msgspec.structs.replace(
        record, result=msgspec.structs.replace(record.result, phases=phases)
    )


def test_training_takes_its_tokens_times_the_step_of_encoder_and_layer() -> None:
    timed = with_encoder(speed_record("full", 10, 0.3, **AS_TRAINED), 0.1)
    results = frames([train_record("full", 10, 50.0), disturbed(timed)])
    (row,) = results.train.to_dict("records")
    assert row["train_seconds"] == pytest.approx(1000 / 20 * 0.4)
    assert row["clock_seconds"] == 9.0
    assert row["disturbance_foreign"] == 0.42  # of the timing, on which the seconds rest
    assert results.curves["seconds"].tolist() == pytest.approx([500 / 20 * 0.4, 1000 / 20 * 0.4])


def test_the_clock_counts_where_a_layer_was_not_timed() -> None:
    """Neither is told by its step: two kinds of seconds are never set side by side."""
    timed = with_encoder(speed_record("full", 10, 0.3, **AS_TRAINED), 0.1)
    trained = [train_record("full", 10, 50.0), train_record("nce", 10, 60.0)]
    assert frames([*trained, timed]).train["train_seconds"].tolist() == [9.0, 9.0]
    other = train_record("nce", 20, 60.0)
    assert frames([trained[0], other, timed]).train["train_seconds"].tolist() == [20.0, 9.0]


@pytest.mark.parametrize(
    "changes",
    [{"hidden_size": 16}, {"encoder": "gru"}, {"encoder": None}, {"optimizer": "adam"}],
)
def test_the_step_must_be_the_one_that_was_trained_with(changes: dict[str, object]) -> None:
    timed = speed_record("full", 10, 0.3, **(AS_TRAINED | changes))
    assert frames([train_record("full", 10, 50.0), timed]).train["train_seconds"].item() == 9.0


def test_given_hidden_states_need_no_encoder() -> None:
    given = train_record("full", 10, 50.0, encoder=GIVEN)
    timed = speed_record("full", 10, 0.3, clip_norm=5.0, corpus_sha256="10")
    assert frames([given, timed]).train["train_seconds"].item() == pytest.approx(15.0)
