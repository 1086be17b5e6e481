"""What one process is given to do, and what it tells while it does it.

A job goes to the process as one line of JSON, on whichever machine it runs; the process writes its
records into the store, and what it tells into a file of JSON lines. No torch here.
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
    """What ``load_corpus`` is given."""

    spec: str
    vocab_size: int | None
    """None keeps every type."""
    seed: int
    """Of the synthetic language."""
    data_dir: str | None = None
    """Folder of corpora."""
    targets: str | None = None
    """File of the targets where ``spec`` is the file of given hidden states."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a process may use at most; None for no limit."""

    seconds: float | None = None
    bytes: int | None = None
    """Resident, with all processes that it starts."""


class _Job(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    limits: Limits = Limits()
    again: bool = False
    """Whether to run although all records are stored."""


class TrainJob(_Job, frozen=True, kw_only=True, tag="train"):
    """Train a model."""

    trial: TrainTrial
    text: Text
    checkpoint_seconds: float = 30.0
    """Between two checkpoints."""


class NgramJob(_Job, frozen=True, kw_only=True, tag="ngram"):
    """Count n-grams."""

    trial: NgramTrial
    text: Text


class SpeedJob(_Job, frozen=True, kw_only=True, tag="speed"):
    """Time layers, which take turns in one process, on a machine that does nothing else."""

    trials: tuple[SpeedTrial, ...]
    budget_seconds: float
    text: Text | None = None
    """Given examples, whose class counts the layers are made for."""


class FidelityJob(_Job, frozen=True, kw_only=True, tag="fidelity"):
    """Set layers against one model with full softmax, which is trained for all of them."""

    trials: tuple[FidelityTrial, ...]
    text: Text


Job = TrainJob | NgramJob | SpeedJob | FidelityJob


def trials_of(job: Job) -> tuple[Trial, ...]:
    """The trials whose records a job writes."""
    return job.trials if isinstance(job, SpeedJob | FidelityJob) else (job.trial,)


def job_id(job: Job) -> str:
    """Name of a job: that of its only trial, or a hash of those of all."""
    identities = [trial_id(trial) for trial in trials_of(job)]
    if len(identities) == 1:
        return identities[0]
    return hashlib.sha256(" ".join(identities).encode()).hexdigest()[:16]


def needs_quiet(job: Job) -> bool:
    """Whether nothing else may run meanwhile: what is timed must not be disturbed."""
    return isinstance(job, SpeedJob)


class Running(msgspec.Struct, frozen=True, kw_only=True, tag="running", tag_field="event"):
    """From here on the process does the work of this trial: it is to blame if that goes wrong."""

    trial: str | None
    """Its identity; None for work that is no trial's own."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress", tag_field="event"):
    """How far the job has come."""

    done: float
    total: float
    """In tokens for training, else in shares of the whole."""


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
    """What was timed is timed again, because others were busy; the machine may calm down first."""

    reasons: str


Event = Running | Progress | Evaluated | Failed | Disturbed
"""What a process tells."""


@dataclass(frozen=True)
class Report:
    """Something that a job told."""

    job: str
    event: Event


@dataclass(frozen=True)
class Failure:
    """Why a job ended without its records."""

    cause: Cause
    reason: str
    seconds: float
    log: str
    """The end of what it printed."""
    trial: str | None = None
    """Identity of the trial that is to blame; None where it is the job as a whole."""


@dataclass(frozen=True)
class Ended:
    """A job does not run any more."""

    job: str
    how: Literal["finished", "failed", "elsewhere", "disk full"]
    """``"finished"``: its records are in the store. ``"elsewhere"``: it did not start, because a
    process of another study has it in work."""
    failure: Failure | None = None
    """Of a failed one."""
