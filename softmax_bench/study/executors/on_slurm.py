"""Jobs of a Slurm cluster, submitted through submitit.

The store is on a file system that all nodes share. A JSON file in its folder ``slurm`` describes a
job. The node runs it as a process, which writes into the store as on a single machine, and writes
to another file how it ended. submitit pickles its submissions, which contain only three strings of
ours; the results it pickles are not read.
"""

from __future__ import annotations

import math
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.files import write_file
from softmax_bench.records.record import Cause
from softmax_bench.study.executors.executor import Executor
from softmax_bench.study.jobs.event_log import EventLog
from softmax_bench.study.jobs.job import Failure, Job, JobExit, Report, job_id
from softmax_bench.study.jobs.lock import claim, job_path
from softmax_bench.study.jobs.process import WORKER
from softmax_bench.study.jobs.resources import resources_of, with_absolute_paths
from softmax_bench.study.jobs.timing import start_job

_POLL_SECONDS = 0.2
_NO_LIMIT_MINUTES = 24 * 60
"""Minutes to request from Slurm if the study sets no time limit."""
_SPARE_MINUTES = 5
"""Minutes added to the study's time limit for start-up and reporting."""
_SILENT_SECONDS = 10.0
"""Delay after which a file written on a node is visible here."""
_CAUSES: dict[str, Cause] = {"TIMEOUT": "time", "OUT_OF_MEMORY": "memory", "CANCELLED": "killed"}


class SlurmExecutor(Executor):
    """Runs jobs on a Slurm cluster.

    Unlike elsewhere, jobs keep running when the process that created the executor is killed. They
    write into the store, where the next run collects finished work and leaves the rest alone.

    Args:
        store: The study's store, on a file system that all nodes share.
        slots: Number of jobs that are queued or running at once.
        cluster: ``"slurm"``, or ``"local"`` for processes of this machine as a rehearsal.
        worker: Module that the processes of jobs run.

    Raises:
        SoftmaxBenchError: submitit is not installed, or there is no Slurm here.
    """

    def __init__(
        self, store: Path, slots: int = 1, cluster: str = "slurm", worker: str = WORKER
    ) -> None:
        self.slots = slots
        self._store = store.absolute()
        self._worker = worker
        self._jobs: dict[str, _Submitted] = {}
        self._exits: list[JobExit] = []
        self._folder = self._store / "slurm"
        self._executor = _open_cluster(self._folder, cluster)

    def submit(self, job: Job) -> None:
        """Queue a job."""
        identity = job_id(job)
        lock = claim(job, self._store)
        if isinstance(lock, str):
            self._exits.append(JobExit(identity, lock))
            return
        lock.close()  # the node will take it
        path = self._folder / f"{identity}.job"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _ended_path(path).unlink(missing_ok=True)
        write_file(path, msgspec.json.encode(with_absolute_paths(job)))
        self._executor.update_parameters(**_parameters(job))
        queued = self._executor.submit(RunJob(), str(self._store), str(path), self._worker)
        self._jobs[identity] = _Submitted(job, path, queued)

    def wait(self, seconds: float) -> list[Report | JobExit]:
        """See :class:`softmax_bench.study.executors.executor.Executor`."""
        until = time.monotonic() + seconds
        reports: list[Report | JobExit] = [*self._exits]
        self._exits.clear()
        while True:
            for identity, submitted in list(self._jobs.items()):
                reports += self._receive(identity, submitted)
            if any(isinstance(report, JobExit) for report in reports) or not self._jobs:
                return reports
            left = until - time.monotonic()
            if left <= 0:
                return reports
            time.sleep(min(_POLL_SECONDS, left))

    def close(self) -> None:
        """Cancel all jobs."""
        for submitted in self._jobs.values():
            submitted.queued.cancel()
            submitted.stop_reading()
        self._jobs.clear()

    def _receive(self, identity: str, submitted: _Submitted) -> list[Report | JobExit]:
        if submitted.events is None:
            with suppress(FileNotFoundError):
                submitted.events = EventLog(job_path(self._store, identity, "events"))
        reports: list[Report | JobExit] = []
        if submitted.events is not None:
            reports += [Report(identity, event) for event in submitted.events.read()]
        ended = submitted.ended(identity)
        if ended is None:
            return reports
        submitted.stop_reading()
        del self._jobs[identity]
        submitted.path.unlink(missing_ok=True)
        _ended_path(submitted.path).unlink(missing_ok=True)
        return [*reports, ended]


@dataclass
class _Submitted:
    job: Job
    path: Path
    queued: Any
    """The job object of submitit."""
    events: EventLog | None = None
    silent_since: float | None = None
    """When it was first seen not running, without a report of how it ended."""

    def ended(self, identity: str) -> JobExit | None:
        with suppress(FileNotFoundError):
            return msgspec.json.decode(_ended_path(self.path).read_bytes(), type=JobExit)
        if not self.queued.done():
            return None
        now = time.monotonic()
        self.silent_since = now if self.silent_since is None else self.silent_since
        if now - self.silent_since < _SILENT_SECONDS:
            return None
        state = self.queued.state.split()[0]  # "CANCELLED by 1000"
        reason = f"Slurm's job {self.queued.job_id} ended without reporting how ({state})"
        return JobExit(
            identity, "failed", Failure(_CAUSES.get(state, "lost"), reason, 0.0, self._log())
        )

    def stop_reading(self) -> None:
        if self.events is not None:
            self.events.close()

    def _log(self) -> str:
        try:
            text: str = self.queued.paths.stderr.read_text(errors="replace")
        except OSError:
            return ""
        return text[-8000:].strip()


class RunJob:
    """Runs on a node; submitit asks it how to continue after a time-out or a preemption."""

    def __call__(self, store: str, path: str, worker: str) -> None:
        """Run the job described by the file ``path``, and write beside it how it ended."""
        job = msgspec.json.decode(Path(path).read_bytes(), type=Job)
        process = start_job(job, Path(store), worker)
        try:
            while True:
                for report in process.poll():
                    if isinstance(report, JobExit):
                        write_file(_ended_path(Path(path)), msgspec.json.encode(report))
                        return
                time.sleep(_POLL_SECONDS)
        finally:
            process.kill()

    def checkpoint(self, *arguments: str) -> Any:
        """Submit the same again; it resumes from the checkpoint in the store."""
        return import_module("submitit").helpers.DelayedSubmission(self, *arguments)


def _ended_path(path: Path) -> Path:
    return path.with_suffix(".ended")


def _open_cluster(folder: Path, cluster: str) -> Any:
    try:
        submitit = import_module("submitit")
    except ImportError:
        raise SoftmaxBenchError(
            "submitit is not installed: pip install 'softmax-bench[slurm]'"
        ) from None
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise SoftmaxBenchError(
            "Slurm was not found on this machine (no sbatch); --address local runs the jobs here"
        )
    return submitit.AutoExecutor(folder=folder, cluster=cluster)


def _parameters(job: Job) -> dict[str, Any]:
    """The resources to request; Slurm's own variables (``SBATCH_PARTITION`` ...) add to them."""
    resources = resources_of(job)
    seconds = job.limits.seconds
    return {
        "name": "softmax-bench",
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": resources.threads,
        "gpus_per_node": resources.gpus,
        "timeout_min": _NO_LIMIT_MINUTES
        if seconds is None
        else math.ceil(seconds / 60) + _SPARE_MINUTES,
        "slurm_mem": None if resources.bytes is None else f"{math.ceil(resources.bytes / 1e6)}M",
        "slurm_exclusive": True if resources.whole_node else None,
    }
