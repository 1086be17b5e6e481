"""The lock of a job in the store, which decides who does the job.

The lock keeps two studies that share a store, on any machines, from doing the same job. The kernel
releases it however its holder ends. Its next holder checks whether the work has been done.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO, Literal

from softmax_bench.records.store import record_path
from softmax_bench.records.trial import trial_id
from softmax_bench.study.jobs.job import Job, job_id, trials_of


def job_path(store: Path, job: str, part: str) -> Path:
    """Where a store keeps a part (``"lock"``, ``"log"``, ``"events"``) of the work on a job."""
    return store / "jobs" / f"{job}.{part}"


def claim(job: Job, store: Path) -> IO[bytes] | Literal["finished", "locked"]:
    """Take the lock of a job: a file that holds it until every process has closed it.

    Returns ``"locked"`` instead if another process is working on the job, or ``"finished"`` if
    its records are stored and it is not to be repeated.

    Raises:
        OSError: The store is not writable.
    """
    path = job_path(store, job_id(job), "lock")
    lock = private_file(path, "ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return "locked"
    if not job.again and all(
        record_path(store, trial_id(trial)).exists() for trial in trials_of(job)
    ):
        path.unlink(missing_ok=True)
        lock.close()
        return "finished"
    return lock


def private_file(path: Path, mode: str) -> IO[bytes]:
    """Open a file that only its owner may read, and create its folder if needed."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open(path, mode, buffering=0, opener=opener)
