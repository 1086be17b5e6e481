"""Training time on a quiet machine: the number of tokens times the measured time of a step.

Another process can double the wall-clock time, and trials of one study that are trained side by
side disturb each other. The step is that of the encoder and the layer as timed alone.
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
    """Time of a training step on a quiet machine."""

    seconds_per_token: float
    disturbance: Disturbance | None
    """What disturbed the timing of the step."""


def quiet_times(records: Iterable[Record]) -> dict[str, QuietTime]:
    """Times by identity, for trained models whose encoder and layer were timed at their sizes.

    Models that differ only in the layer are compared with each other. If the step of one of them
    was not timed, none has a quiet time, so that it is never compared with wall-clock time.
    """
    records = list(records)
    timed: dict[_Key, SpeedRecord] = {}
    for record in records:
        if isinstance(record, SpeedRecord):
            key = _timed_key(record.trial)
            if key not in timed or timed[key].started <= record.started:
                timed[key] = record
    trained = [record for record in records if isinstance(record, TrainRecord)]
    timings = {record.id: timed.get(_trained_key(record.trial)) for record in trained}
    incomplete = {_trained_key(one.trial)[1:] for one in trained if timings[one.id] is None}
    return {
        record.id: _quiet_time(speed)
        for record in trained
        if (speed := timings[record.id]) and _trained_key(record.trial)[1:] not in incomplete
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
