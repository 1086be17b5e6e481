"""The schema of every stored record: a trial, the machine it ran on, and its result.

There is no torch here, because reports are made on machines without it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from softmax_bench.records.result import FidelityResult, NgramResult, SpeedResult, TrainResult
from softmax_bench.records.trial import (
    TRIALS,
    FidelityTrial,
    NgramTrial,
    SpeedTrial,
    TrainTrial,
    Trial,
)

SCHEMA_VERSION = 1


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, and the versions of the software on it."""

    processor: str
    cores: int
    memory_bytes: int
    system: str
    accelerator: str | None
    versions: dict[str, str]
    """Versions of python, torch, numpy and softmax-bench."""
    blas: str
    git_commit: str | None
    """Commit of softmax_bench's own checkout, with ``-dirty`` if it was modified."""
    threads: int | None = None
    """Torch's threads at the time of the description."""
    driver: str | None = None
    """CUDA version that torch was built for, and compute capability of the accelerator."""
    variables: dict[str, str]
    """Environment variables that affect speed, if set (``OMP_NUM_THREADS`` ...)."""


class StoredRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of every record."""

    schema: int = SCHEMA_VERSION
    id: str
    """Identity of the trial."""
    started: str
    """ISO 8601, UTC."""


class TrainRecord(StoredRecord, frozen=True, kw_only=True, tag="train", tag_field="kind"):
    """A finished training trial."""

    trial: TrainTrial
    environment: Environment
    result: TrainResult


class SpeedRecord(StoredRecord, frozen=True, kw_only=True, tag="speed", tag_field="kind"):
    """A finished timing trial."""

    trial: SpeedTrial
    environment: Environment
    result: SpeedResult


class NgramRecord(StoredRecord, frozen=True, kw_only=True, tag="ngram", tag_field="kind"):
    """An n-gram model, the reference that needs no training."""

    trial: NgramTrial
    environment: Environment
    result: NgramResult


class FidelityRecord(StoredRecord, frozen=True, kw_only=True, tag="fidelity", tag_field="kind"):
    """A comparison of a layer with full softmax."""

    trial: FidelityTrial
    environment: Environment
    result: FidelityResult


Cause = Literal["diverged", "error", "crash", "memory", "time", "killed", "lost"]
"""Why a trial gave no result: training diverged to NaN or infinity, an exception, a signal such as
a segmentation fault, more memory than available or allowed, more time than allowed, a kill from
outside, or the loss of its machine.
"""

FROM_OUTSIDE: frozenset[Cause] = frozenset({"killed", "lost"})
"""Causes outside the trial: repeating the command retries it."""


class FailureRecord(StoredRecord, frozen=True, kw_only=True, tag="failure", tag_field="kind"):
    """A trial that gave no result, and why."""

    of: str
    """Kind of the trial: ``"train"``, ``"speed"`` or ``"ngram"``."""
    configuration: dict[str, Any]
    """Fields of the trial."""
    cause: Cause
    reason: str
    """One readable line."""
    seconds: float
    """Seconds since the start of its process."""
    log: str
    """The end of its output."""

    @property
    def trial(self) -> Trial:
        """The trial itself."""
        return msgspec.convert(self.configuration, TRIALS[self.of])


Record = TrainRecord | SpeedRecord | NgramRecord | FidelityRecord
"""The result of a trial."""
Stored = Record | FailureRecord
"""What a file of the store may contain."""
