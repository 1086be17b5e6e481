"""The store of results: a folder with one JSON file per record.

Files are written atomically, their names are the trials' identities, and they share nothing. So
several processes may write to one store, and two stores are merged by copying the files of one into
the other. A failure is in a file of its own, so that no copying replaces a result by it, and it
counts only if there is no result.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.files import write_file
from softmax_bench.records.record import SCHEMA_VERSION, FailureRecord, Record, Stored
from softmax_bench.records.trial import trial_id

_log = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)
_RESULT, _FAILURE, _DAMAGED = ".json", ".failed.json", ".damaged"


class DamagedRecordError(SoftmaxBenchError):
    """A file of the store is not a valid record: it is truncated or was modified."""


class LaterRecordError(SoftmaxBenchError):
    """A record of the store was written by a later version."""


class DiskFullError(SoftmaxBenchError):
    """There is no disk space left to write a record."""


def disk_full(error: BaseException | None) -> bool:
    """Whether an exception, or one of its causes, is a full disk or quota."""
    while error is not None:
        if isinstance(error, DiskFullError):
            return True
        if isinstance(error, OSError) and (
            error.errno in _FULL or any(os.strerror(number) in str(error) for number in _FULL)
        ):  # a library may keep only the message
            return True
        error = error.__cause__ or error.__context__
    return False


def record_path(folder: Path, identity: str) -> Path:
    """Where the store ``folder`` keeps the result of a trial."""
    return folder / f"{identity}{_RESULT}"


def failure_path(folder: Path, identity: str) -> Path:
    """Where the store ``folder`` keeps the failure of a trial."""
    return folder / f"{identity}{_FAILURE}"


def checkpoint_path(folder: Path, identity: str) -> Path:
    """Where a model in training is kept for resuming; removed when its record is written."""
    return folder / "checkpoints" / f"{identity}.safetensors"


def write_record(folder: Path, record: Stored) -> Path:
    """Write ``record`` atomically into the store ``folder``, created if necessary.

    A result replaces an earlier failure of the same trial.

    Raises:
        DiskFullError: There is no disk space left. Existing files are not touched.
        SoftmaxBenchError: It contains a number that JSON does not have, such as infinity.
    """
    text = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
    # JSON writes non-finite numbers as null, which an optional field or a plain mapping accepts.
    wrong = [name for name, value in _numbers(msgspec.to_builtins(record)) if not isfinite(value)]
    if wrong:
        raise SoftmaxBenchError(
            f"the record {record.id} is not written, because it could not be read again: "
            f"{', '.join(wrong)} is infinite or not a number"
        )
    try:
        if isinstance(record, FailureRecord):
            return write_file(failure_path(folder, record.id), text)
        path = write_file(record_path(folder, record.id), text)
    except OSError as error:
        if disk_full(error):
            raise DiskFullError(f"no disk space left to write a record in {folder}") from error
        raise
    failure_path(folder, record.id).unlink(missing_ok=True)
    return path


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Floats anywhere inside plain values, with the name of their field."""
    if isinstance(value, float):
        yield name, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _numbers(one, str(key))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one, name)


def check_store(folder: Path) -> None:
    """Check that a store can be written, or created if there is none; nothing is left behind.

    Raises:
        SoftmaxBenchError: It cannot.
    """
    with _refused(folder):
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass


def make_store(folder: Path) -> None:
    """Create the folder of a store, and check that it is writable.

    Raises:
        SoftmaxBenchError: It is not.
    """
    with _refused(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def _refused(folder: Path) -> Iterator[None]:
    """Say of which folder an error of the file system is, and what to do about it."""
    try:
        yield
    except OSError as error:
        if disk_full(error):
            raise
        a_file = isinstance(error, FileExistsError | NotADirectoryError) and folder.is_file()
        what = "there is a file of that name" if a_file else error.strerror
        raise SoftmaxBenchError(
            f"cannot write results into {folder}: {what}; name another folder with --out"
        ) from error


def read_record(path: Path) -> Stored:
    """Read one record, of this schema or an older one.

    Raises:
        DamagedRecordError: The file is not a valid record.
        LaterRecordError: The record has a schema that this version does not know yet.
    """
    content = path.read_bytes()
    try:
        schema = msgspec.json.decode(content, type=_Head).schema
        if schema > SCHEMA_VERSION:
            raise LaterRecordError(
                f"{path} is a record of schema {schema}, this version of softmax-bench reads up "
                f"to {SCHEMA_VERSION}: install the version that wrote it"
            )
        record = msgspec.json.decode(content, type=Stored)
        identity = trial_id(record.trial)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, KeyError) as error:
        raise DamagedRecordError(f"{path} is not a result record: {error}") from error
    if record.id != identity:
        raise DamagedRecordError(f"{path} was modified: its identity is not that of its trial")
    return record


class _Head(msgspec.Struct):
    schema: int = 0


@dataclass(frozen=True)
class Contents:
    """The contents of a store; each trial counts once."""

    records: dict[str, Record]
    """Results by identity, oldest first."""
    failures: dict[str, FailureRecord]
    """Failures of the trials without a result."""
    damaged: dict[Path, str]
    """Files that are not valid records, and why."""
    later: dict[Path, str]
    """Records that only a later version can read, and why."""

    def refuse_later(self) -> None:
        """Raise a LaterRecordError if there is such a record."""
        for message in self.later.values():
            raise LaterRecordError(message)


def read_store(folder: Path) -> Contents:
    """Read everything in the store; nothing if there is no such folder.

    One bad file does not keep the others from being read.
    """
    valid: list[Stored] = []
    damaged: dict[Path, str] = {}
    later: dict[Path, str] = {}
    for path in sorted(folder.glob(f"*{_RESULT}")):
        try:
            valid.append(read_record(path))
        except DamagedRecordError as error:
            damaged[path] = str(error)
        except LaterRecordError as error:
            later[path] = str(error)
        except FileNotFoundError:  # a failure for which another process has just stored a result
            continue
    valid.sort(key=lambda record: (record.started, record.id))
    records = {record.id: record for record in valid if not isinstance(record, FailureRecord)}
    failures = {
        record.id: record
        for record in valid
        if isinstance(record, FailureRecord) and record.id not in records
    }
    return Contents(records, failures, damaged, later)


def set_aside(damaged: dict[Path, str]) -> Iterator[Path]:
    """Rename invalid files, so that they are kept but no longer read; return their new names.

    They are kept for inspection, and their trials run again.
    """
    for path in damaged:
        renamed = path.with_name(path.name + _DAMAGED)
        with suppress(FileNotFoundError):  # another study was faster
            path.replace(renamed)
            yield renamed


def read_contents(path: Path) -> Contents:
    """Read the store ``path`` for a report; unreadable files are left out, with a log message.

    Raises:
        SoftmaxBenchError: The folder is missing or contains no record.
    """
    if not path.is_dir():
        raise SoftmaxBenchError(
            f"no results at {path}: expected a folder that 'softmax-bench run' has written"
        )
    contents = read_store(path)
    for message in [*contents.damaged.values(), *contents.later.values()]:
        _log.warning("left out: %s", message)
    if contents.records:
        return contents
    if contents.failures:
        first = next(iter(contents.failures.values()))
        raise SoftmaxBenchError(
            f"no results in {path}: all of its {len(contents.failures)} trials failed, the first "
            f"because: {first.reason}"
        )
    raise SoftmaxBenchError(
        f"no results in {path}: it holds no *{_RESULT} record; run 'softmax-bench run' first"
    )
