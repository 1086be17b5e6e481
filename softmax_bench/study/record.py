"""The schema of every stored record: a trial, the machine it ran on, and what came of it.

No torch here: reports are drawn on machines that have none.
"""

from __future__ import annotations

import msgspec

from softmax_bench.study.result import FidelityResult, NgramResult, SpeedResult, TrainResult
from softmax_bench.study.trial import FidelityTrial, NgramTrial, SpeedTrial, TrainTrial

SCHEMA_VERSION = 1


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the versions of what ran on it."""

    processor: str
    cores: int
    memory_bytes: int
    system: str
    accelerator: str | None
    versions: dict[str, str]
    """Of python, torch, numpy and softmax-bench."""
    blas: str
    git_commit: str | None
    """Commit of softmax_bench's own checkout, with ``-dirty`` where it was changed."""
    threads: int | None = None
    """Of torch, when described."""
    driver: str | None = None
    """Version of CUDA that torch was built for, and compute capability of the accelerator."""
    variables: dict[str, str]
    """Environment variables that change speed, where set (``OMP_NUM_THREADS`` ...)."""


class TrainRecord(msgspec.Struct, frozen=True, kw_only=True, tag="train", tag_field="kind"):
    """A finished training trial."""

    schema: int = SCHEMA_VERSION
    id: str
    started: str
    """ISO 8601, UTC."""
    trial: TrainTrial
    environment: Environment
    result: TrainResult


class SpeedRecord(msgspec.Struct, frozen=True, kw_only=True, tag="speed", tag_field="kind"):
    """A finished timing trial."""

    schema: int = SCHEMA_VERSION
    id: str
    started: str
    trial: SpeedTrial
    environment: Environment
    result: SpeedResult


class NgramRecord(msgspec.Struct, frozen=True, kw_only=True, tag="ngram", tag_field="kind"):
    """An n-gram model, the reference that needs no training."""

    schema: int = SCHEMA_VERSION
    id: str
    started: str
    trial: NgramTrial
    environment: Environment
    result: NgramResult


class FidelityRecord(msgspec.Struct, frozen=True, kw_only=True, tag="fidelity", tag_field="kind"):
    """A layer set against full softmax."""

    schema: int = SCHEMA_VERSION
    id: str
    started: str
    trial: FidelityTrial
    environment: Environment
    result: FidelityResult


Record = TrainRecord | SpeedRecord | NgramRecord | FidelityRecord
