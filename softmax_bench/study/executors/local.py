"""Jobs as processes on this machine."""

from __future__ import annotations

import time
from pathlib import Path

from softmax_bench.study.executors.executor import Executor
from softmax_bench.study.jobs.job import Job, JobExit, Report, job_id
from softmax_bench.study.jobs.process import WORKER, JobProcess
from softmax_bench.study.jobs.timing import TimingProcess, start_job

_POLL_SECONDS = 0.05


class LocalExecutor(Executor):
    """Runs jobs as processes of this machine.

    Args:
        store: Where the jobs write their records.
        slots: Number of jobs that run at once.
        worker: Module that the processes run.
    """

    def __init__(self, store: Path, slots: int = 1, worker: str = WORKER) -> None:
        self.slots = slots
        self._store = store
        self._worker = worker
        self._running: dict[str, JobProcess | TimingProcess] = {}

    def submit(self, job: Job) -> None:
        """Start a process."""
        self._running[job_id(job)] = start_job(job, self._store, self._worker)

    def wait(self, seconds: float) -> list[Report | JobExit]:
        """See :class:`softmax_bench.study.executors.executor.Executor`."""
        until = time.monotonic() + seconds
        reports: list[Report | JobExit] = []
        while True:
            for process in list(self._running.values()):
                reports += process.poll()
            ended = [report.job for report in reports if isinstance(report, JobExit)]
            for job in ended:
                del self._running[job]
            if ended or not self._running or time.monotonic() >= until:
                return reports
            time.sleep(min(_POLL_SECONDS, seconds))

    def close(self) -> None:
        """Kill all processes."""
        for process in self._running.values():
            process.kill()
        self._running.clear()
