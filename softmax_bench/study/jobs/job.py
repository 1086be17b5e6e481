"""What a process is asked to do, and what it reports meanwhile.

A job goes to the process as one line of JSON, on whichever machine it runs. The process writes its
records into the store and its events into a file of JSON lines. No torch here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import msgspec

from softmax_bench.records.record import Cause
from softmax_bench.records.trial import (
    FidelityTrial,
    NgramTrial,
    SpeedTrial,
    TrainTrial,
    Trial,
    trial_id,
)


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of ``load_corpus``."""

    spec: str
    vocab_size: int | None
    """Vocabulary size; None keeps every type."""
    seed: int
    """Seed of the synthetic language."""
    data_dir: str | None = None
    """Folder of corpora."""
    targets: str | None = None
    """File of the targets, if ``spec`` is the file of given hidden states."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a process; None for no limit."""

    seconds: float | None = None
    bytes: int | None = None
    """Resident bytes, including all processes that it starts."""


class _Job(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    limits: Limits = Limits()
    again: bool = False
    """Whether to run even if all records are stored."""


class TrainJob(_Job, frozen=True, kw_only=True, tag="train"):
    """Train a model."""

    trial: TrainTrial
    text: Text
    checkpoint_seconds: float = 30.0
    """Seconds between two checkpoints."""


class NgramJob(_Job, frozen=True, kw_only=True, tag="ngram"):
    """Count n-grams."""

    trial: NgramTrial
    text: Text


class SpeedJob(_Job, frozen=True, kw_only=True, tag="speed"):
    """Time layers in alternation in one process, on an otherwise idle machine."""

    trials: tuple[SpeedTrial, ...]
    budget_seconds: float
    text: Text | None = None
    """Given examples; the layers are created for their class counts."""


class FidelityJob(_Job, frozen=True, kw_only=True, tag="fidelity"):
    """Compare layers with one full-softmax model, which is trained once for all of them."""

    trials: tuple[FidelityTrial, ...]
    text: Text


Job = TrainJob | NgramJob | SpeedJob | FidelityJob


def trials_of(job: Job) -> tuple[Trial, ...]:
    """The trials whose records a job writes."""
    return job.trials if isinstance(job, SpeedJob | FidelityJob) else (job.trial,)


def job_id(job: Job) -> str:
    """Name of a job: that of its only trial, or a hash of the names of all."""
    identities = [trial_id(trial) for trial in trials_of(job)]
    if len(identities) == 1:
        return identities[0]
    return hashlib.sha256(" ".join(identities).encode()).hexdigest()[:16]


def needs_quiet(job: Job) -> bool:
    """Whether nothing else may run at the same time, because timings must not be disturbed."""
    return isinstance(job, SpeedJob)


class Running(msgspec.Struct, frozen=True, kw_only=True, tag="running", tag_field="event"):
    """From now on, the process works on this trial, which is to blame for a failure."""

    trial: str | None
    """Its identity; None for work that belongs to no single trial."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress", tag_field="event"):
    """How far the job is."""

    done: float
    total: float
    """In tokens for training, otherwise as a share of the whole."""


class Evaluated(msgspec.Struct, frozen=True, kw_only=True, tag="evaluated", tag_field="event"):
    """An evaluation in the middle of training."""

    tokens: int
    train_loss: float
    valid_perplexity: float


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed", tag_field="event"):
    """The work ended with an exception."""

    cause: Cause
    reason: str


class Disturbed(msgspec.Struct, frozen=True, kw_only=True, tag="disturbed", tag_field="event"):
    """A disturbed timing is repeated, after waiting for the machine to become calm."""

    reasons: str


Event = Running | Progress | Evaluated | Failed | Disturbed
"""Anything that a process reports."""


@dataclass(frozen=True)
class Report:
    """An event reported by a job."""

    job: str
    event: Event


@dataclass(frozen=True)
class Failure:
    """Why a job ended without its records."""

    cause: Cause
    reason: str
    seconds: float
    log: str
    """The end of its output."""
    trial: str | None = None
    """Identity of the trial to blame; None if it is the job as a whole."""


@dataclass(frozen=True)
class JobExit:
    """The end of a job."""

    job: str
    how: Literal["finished", "failed", "locked", "disk full"]
    """``"finished"``: its records are in the store. ``"locked"``: it did not start, because a
    process of another study is working on it.
    """
    failure: Failure | None = None
    """Set if the job failed."""
