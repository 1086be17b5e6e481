"""Stored results: a folder with one JSON file a record.

A file is written whole or not at all, its name is the trial's identity, and nothing is ever
shared between files: so several processes may write to one store, and two stores are merged by
copying the files of one into the other.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.study.record import Evaluation, Record, SpeedRecord, TrainRecord

if TYPE_CHECKING:
    import pandas as pd

_SUFFIX = ".json"


def record_path(folder: Path, identity: str) -> Path:
    """Where the store ``folder`` keeps the record of a trial."""
    return folder / f"{identity}{_SUFFIX}"


def write_record(folder: Path, record: Record) -> Path:
    """Write ``record`` into the store ``folder`` (made if absent), whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    target = record_path(folder, record.id)
    text = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{record.id}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        SoftmaxBenchError: The file is not a record of this schema.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except msgspec.DecodeError as error:
        raise SoftmaxBenchError(f"{path} is not a result record: {error}") from error


def read_records(path: Path) -> list[Record]:
    """Read every record of the store ``path``, oldest first.

    Raises:
        SoftmaxBenchError: The folder is missing or empty, or a record in it is damaged.
    """
    if not path.is_dir():
        raise SoftmaxBenchError(
            f"no results at {path}: expected a folder that 'softmax-bench run' has written"
        )
    records = [read_record(file) for file in sorted(path.glob(f"*{_SUFFIX}"))]
    if not records:
        raise SoftmaxBenchError(
            f"no results in {path}: it holds no *{_SUFFIX} record; run 'softmax-bench run' first"
        )
    return sorted(records, key=lambda record: (record.started, record.id))


@dataclass(frozen=True)
class Results:
    """Stored results as tidy tables: one row an observation, the configuration in its columns."""

    train: pd.DataFrame
    """One row a trained model: the trial's fields, budgets, ``valid_*`` and ``test_*`` quality."""
    curves: pd.DataFrame
    """One row an evaluation during training; ``id`` refers to ``train``."""
    speed: pd.DataFrame
    """One row a timed phase of a layer: ``phase``, ``seconds``, ``low``, ``high``, ``samples``,
    cost, memory, and what else the machine did (``disturbance_*``)."""
    ngrams: pd.DataFrame
    """One row an n-gram model: ``order``, ``train_seconds``, ``valid_*`` and ``test_*`` quality."""
    environments: pd.DataFrame
    """One row a record: the machine it was made on; ``id`` refers to the other tables."""


def load_results(path: str | os.PathLike[str]) -> Results:
    """Load the store at ``path`` as pandas frames.

    Raises:
        SoftmaxBenchError: There is no store at ``path``, or a record in it is damaged.
    """
    return frames(read_records(Path(path)))


def frames(records: Sequence[Record]) -> Results:
    """Spread records into tidy tables."""
    import pandas as pd

    train: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    speed: list[dict[str, Any]] = []
    ngrams: list[dict[str, Any]] = []
    environments: list[dict[str, Any]] = []
    for record in records:
        environments.append({"id": record.id, **msgspec.structs.asdict(record.environment)})
        head = {
            "id": record.id,
            "started": record.started,
            **msgspec.structs.asdict(record.trial),
        }
        if isinstance(record, TrainRecord):
            result = record.result
            budget = {
                "train_tokens": result.train_tokens,
                "train_seconds": result.train_seconds,
                "parameters": result.parameters,
                "layer_parameters": result.layer_parameters,
            }
            train.append(head | budget | _quality(valid=result.valid, test=result.test))
            curves += [
                {
                    "id": record.id,
                    "layer": record.trial.layer,
                    "vocab_size": record.trial.vocab_size,
                }
                | msgspec.structs.asdict(point)
                for point in result.curve
            ]
        elif isinstance(record, SpeedRecord):
            cost = msgspec.structs.asdict(record.result)
            phases = cost.pop("phases")
            for part in ("memory", "disturbance"):
                nested = cost.pop(part)
                fields = {} if nested is None else msgspec.structs.asdict(nested)
                cost |= {f"{part}_{name}": value for name, value in fields.items()}
            speed += [
                head
                | {
                    "phase": phase,
                    "seconds": timing.median,
                    "low": timing.low,
                    "high": timing.high,
                    "repetitions": timing.repetitions,
                    "samples": timing.samples,
                    "stopped": timing.stopped,
                }
                | cost
                for phase, timing in phases.items()
            ]
        else:
            counted = record.result
            quality = _quality(valid=counted.valid, test=counted.test)
            ngrams.append(head | {"train_seconds": counted.train_seconds} | quality)
    return Results(
        train=pd.DataFrame(train),
        curves=pd.DataFrame(curves),
        speed=pd.DataFrame(speed),
        ngrams=pd.DataFrame(ngrams),
        environments=pd.DataFrame(environments),
    )


def _quality(**splits: Evaluation) -> dict[str, Any]:
    return {
        f"{split}_{name}": value
        for split, evaluation in splits.items()
        for name, value in msgspec.to_builtins(evaluation).items()
    }
