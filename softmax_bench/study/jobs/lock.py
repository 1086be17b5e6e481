"""Who does a job: whoever holds its lock in the store.

The lock keeps two studies on one store, on whichever machines, from doing the same job. The kernel
gives it back however its holder ends. Whoever gets it looks whether the work was done meanwhile.
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


def claim(job: Job, store: Path) -> IO[bytes] | Literal["finished", "elsewhere"]:
    """Take the lock of a job: the file that holds it until it is closed in every process.

    In place of it, ``"elsewhere"`` where another process has the job in work, or ``"finished"``
    where its records are stored and it is not to be done again.

    Raises:
        OSError: The store cannot be written to.
    """
    path = job_path(store, job_id(job), "lock")
    lock = private_file(path, "ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return "elsewhere"
    if not job.again and all(
        record_path(store, trial_id(trial)).exists() for trial in trials_of(job)
    ):
        path.unlink(missing_ok=True)
        lock.close()
        return "finished"
    return lock


def private_file(path: Path, mode: str) -> IO[bytes]:
    """Open a file that only its owner may read; its folder is made if absent."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open(path, mode, buffering=0, opener=opener)
