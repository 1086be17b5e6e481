"""Stored results: a folder with one JSON file a record.

A file is written whole or not at all, its name is the trial's identity, and nothing is ever
shared between files: so several processes may write to one store, and two stores are merged by
copying the files of one into the other.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.study.record import Record

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
