"""How long training takes on a quiet machine: its tokens, times the measured time of a step.

A neighbour can double the seconds that a clock shows, and the trials of one study are such
neighbours where they train side by side. The step is that of the encoder and of the layer as they
were timed alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from softmax_bench.records.record import Record, SpeedRecord, TrainRecord
from softmax_bench.records.result import Disturbance
from softmax_bench.records.trial import GIVEN, SpeedTrial, TrainTrial

_Key = tuple[object, ...]


@dataclass(frozen=True)
class QuietTime:
    """Of one training step's tokens."""

    seconds_per_token: float
    disturbance: Disturbance | None
    """While the step was timed."""


def quiet_times(records: Iterable[Record]) -> dict[str, QuietTime]:
    """By identity, for the trained models whose encoder and layer were timed at their sizes.

    Models that differ in the layer alone are compared with each other. Unless the steps of all of
    them were timed none has a quiet time: it is not set beside the seconds of a clock.
    """
    records = list(records)
    timed: dict[_Key, SpeedRecord] = {}
    for record in records:
        if isinstance(record, SpeedRecord):
            key = _timed_key(record.trial)
            if key not in timed or timed[key].started <= record.started:
                timed[key] = record
    trained = [record for record in records if isinstance(record, TrainRecord)]
    found = {record.id: timed.get(_trained_key(record.trial)) for record in trained}
    incomplete = {_trained_key(one.trial)[1:] for one in trained if found[one.id] is None}
    return {
        record.id: _quiet_time(speed)
        for record in trained
        if (speed := found[record.id]) and _trained_key(record.trial)[1:] not in incomplete
    }


def _quiet_time(speed: SpeedRecord) -> QuietTime:
    phases = speed.result.phases
    step = sum(phases[name].median for name in ("encoder", "step") if name in phases)
    return QuietTime(step / speed.trial.num_tokens, speed.result.disturbance)


def _timed_key(trial: SpeedTrial) -> _Key:
    encoder: _Key = (
        trial.encoder, trial.embedding_size or trial.hidden_size, trial.num_layers, trial.bptt
    )  # fmt: skip
    given = trial.encoder is None and trial.corpus_sha256 is not None
    return (
        trial.layer, trial.vocab_size, trial.hidden_size, trial.num_tokens, trial.optimizer,
        trial.clip_norm, trial.device, trial.dtype, (GIVEN,) if given else encoder,
    )  # fmt: skip


def _trained_key(trial: TrainTrial) -> _Key:
    encoder: _Key = (trial.encoder, trial.embedding_size, trial.num_layers, trial.bptt)
    return (
        trial.layer, trial.vocab_size, trial.hidden_size, trial.batch_size * trial.bptt,
        trial.optimizer, trial.clip_norm, trial.device, trial.dtype,
        (GIVEN,) if trial.encoder == GIVEN else encoder,
    )  # fmt: skip
