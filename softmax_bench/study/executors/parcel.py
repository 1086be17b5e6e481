"""A job far from its store: msgpack messages that go there and come back.

The machine needs no folder in common with the study. The job runs in a private store, and its
events, checkpoints, records and log come back one after the other.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import msgspec

from softmax_bench.files import write_file
from softmax_bench.records.record import Record
from softmax_bench.records.store import checkpoint_path, read_store, write_record
from softmax_bench.records.trial import trial_id
from softmax_bench.study.jobs.job import Event, Job, JobExit, TrainJob, job_id, trials_of
from softmax_bench.study.jobs.lock import job_path, private_file
from softmax_bench.study.jobs.timing import start_job

_POLL_SECONDS = 0.2
_LARGEST_CHECKPOINT = 2**30
"""Larger checkpoints are not sent, since repeating that would keep a network busy."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint", tag_field="event"):
    """The checkpoint of a model in training, as the job stored it."""

    content: bytes


class Parcel(msgspec.Struct, frozen=True, kw_only=True, tag="parcel", tag_field="event"):
    """The last message: the results of the job."""

    ended: JobExit
    records: list[Record]
    log: bytes


Message = Event | Checkpoint | Parcel


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to run on a machine."""

    job: Job
    worker: str
    checkpoint: bytes | None
    """The checkpoint to resume from."""


def pack(job: Job, store: Path, worker: str) -> bytes:
    """Pack the order for a job, with its checkpoint in the store.

    Args:
        job: The job to run.
        store: The study's store.
        worker: Module that the process runs.
    """
    path = _checkpoint_of(job, store)
    checkpoint = None if path is None or _written(path) is None else path.read_bytes()
    return _encode(Order(job=job, worker=worker, checkpoint=checkpoint))


def work(order: bytes) -> Generator[bytes, None, None]:
    """Execute an order in a process of this machine, and yield messages as they come."""
    # Ray cancels by an interrupt, which Python ignores if a shell has started it in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    received = msgspec.msgpack.decode(order, type=Order)
    with tempfile.TemporaryDirectory(prefix="softmax-bench-") as folder:
        store = Path(folder)
        checkpoint = _checkpoint_of(received.job, store)
        if checkpoint is not None and received.checkpoint is not None:
            write_file(checkpoint, received.checkpoint)
        sent = _written(checkpoint)
        process = start_job(received.job, store, received.worker)
        try:
            while True:
                reports = process.poll()
                written = _written(checkpoint)
                if checkpoint is not None and written not in (None, sent):
                    sent = written
                    with suppress(FileNotFoundError):  # the job no longer needs it
                        yield _encode(Checkpoint(content=checkpoint.read_bytes()))
                for report in reports:
                    if isinstance(report, JobExit):
                        yield _encode(_parcel(report, received.job, store))
                        return
                    yield _encode(report.event)
                time.sleep(_POLL_SECONDS)
        finally:
            process.kill()


def unpack(message: bytes, job: Job, store: Path) -> Event | JobExit | None:
    """Read a message about ``job``, and store its contents in the study's store.

    Records of trials other than the job's are rejected. A checkpoint is not reported.

    Raises:
        OSError: There is no disk space left, or the store is not writable.
        DiskFullError: There is no disk space left for a record.
    """
    received = msgspec.msgpack.decode(message, type=Message)
    checkpoint = _checkpoint_of(job, store)
    if isinstance(received, Checkpoint):
        if checkpoint is not None:
            write_file(checkpoint, received.content)
        return None
    if not isinstance(received, Parcel):
        return received
    own_ids = {trial_id(trial) for trial in trials_of(job)}
    for record in received.records:
        if record.id in own_ids:
            write_record(store, record)
    if received.ended.how == "finished" and checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    if received.log:
        with private_file(job_path(store, job_id(job), "log"), "wb") as log:
            log.write(received.log)
    return received.ended


def _encode(message: Message | Order) -> bytes:
    return msgspec.msgpack.encode(message)


def _parcel(ended: JobExit, job: Job, store: Path) -> Parcel:
    log = job_path(store, job_id(job), "log")
    return Parcel(
        ended=ended,
        records=list(read_store(store).records.values()),
        log=log.read_bytes() if log.exists() else b"",
    )


def _checkpoint_of(job: Job, store: Path) -> Path | None:
    """Where a store keeps the checkpoint of a job, if it writes any."""
    return checkpoint_path(store, job_id(job)) if isinstance(job, TrainJob) else None


def _written(checkpoint: Path | None) -> int | None:
    """When a checkpoint was written; None if there is none to send."""
    if checkpoint is None:
        return None
    try:
        status = checkpoint.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns if status.st_size <= _LARGEST_CHECKPOINT else None
