"""Timing jobs, which are repeated if the machine was busy."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from softmax_bench.records.record import SpeedRecord
from softmax_bench.records.store import DamagedRecordError, read_record, record_path
from softmax_bench.records.trial import trial_id
from softmax_bench.study.jobs.calm import CalmWatch, is_calm, wait_passively
from softmax_bench.study.jobs.job import Disturbed, Job, JobExit, Report, SpeedJob
from softmax_bench.study.jobs.process import WORKER, JobProcess

RETIMINGS = 2
"""Most repetitions of a timing."""


def start_job(job: Job, store: Path, worker: str = WORKER) -> JobProcess | TimingProcess:
    """Start a job; its threads wait passively unless it measures times on a calm machine.

    Raises:
        OSError: The store cannot be written to.
    """
    if isinstance(job, SpeedJob):
        return TimingProcess(job, store, worker)
    return JobProcess(job, store, worker, wait_passively(dict(os.environ)))


class TimingProcess:
    """A timing job, which is restarted if other processes disturbed it.

    It waits for the machine to become calm, for as long as the timing itself may take. If it does
    not, timings with spinning threads are repeated with passive ones; the others are kept and
    marked as disturbed.

    Args:
        job: The timing job.
        store: As for :class:`~softmax_bench.study.jobs.process.JobProcess`.
        worker: As for the same class.
    """

    def __init__(self, job: SpeedJob, store: Path, worker: str = WORKER) -> None:
        self._job, self._store, self._worker = job, store, worker
        self._left = RETIMINGS
        self._waiting: CalmWatch | None = None
        self._start(calm=is_calm())
        self.id = self._process.id

    def _start(self, *, calm: bool) -> None:
        environment = dict(os.environ)
        self._spins = calm
        self._process = JobProcess(
            self._job, self._store, self._worker,
            environment if calm else wait_passively(environment),
        )  # fmt: skip

    def poll(self) -> list[Report | JobExit]:
        """As :meth:`softmax_bench.study.jobs.process.JobProcess.poll`."""
        if self._waiting is not None:
            return self._wait(self._waiting)
        reports = self._process.poll()
        if self._left and JobExit(self.id, "finished") in reports:
            reasons = self._disturbed()
            if reasons:
                self._waiting = CalmWatch()
                self._until = time.monotonic() + self._job.budget_seconds
                return [*reports[:-1], Report(self.id, Disturbed(reasons=reasons))]
        return reports

    def _wait(self, watch: CalmWatch) -> list[Report | JobExit]:
        calm = watch.calm()
        if not calm and time.monotonic() < self._until:
            return []
        self._waiting = None
        if not calm and not self._spins:
            return [JobExit(self.id, "finished")]
        self._left = self._left - 1 if calm else 0
        self._job = msgspec.structs.replace(self._job, again=True)
        self._start(calm=calm)
        return []

    def _disturbed(self) -> str:
        """What disturbed the timing; empty if nothing did."""
        with suppress(FileNotFoundError, DamagedRecordError):  # the caller will find out
            record = read_record(record_path(self._store, trial_id(self._job.trials[0])))
            if isinstance(record, SpeedRecord) and (disturbance := record.result.disturbance):
                return ", ".join(disturbance.reasons) if disturbance.by_others else ""
        return ""

    def kill(self) -> None:
        """As :meth:`softmax_bench.study.jobs.process.JobProcess.kill`."""
        if self._waiting is None:
            self._process.kill()
