"""Runs one job in one process, watches it, and ends it without harm to anything else.

The process receives its job through its standard input, which stays open: when this end is closed
because the parent is gone, it ends itself. Its events come through a file, not a pipe, so nobody is
woken during a timing and the file can be read after the process was killed. Both ends hold the
job's lock.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from softmax_bench.records.record import Cause
from softmax_bench.records.trial import trial_id
from softmax_bench.study.jobs.event_log import EventLog
from softmax_bench.study.jobs.job import (
    Event,
    Failed,
    Failure,
    Job,
    JobExit,
    Report,
    Running,
    job_id,
    trials_of,
)
from softmax_bench.study.jobs.lock import claim, job_path, private_file

WORKER = "softmax_bench.study.jobs.worker"
DISK_FULL = 74
"""Exit status of a worker that had no disk space left."""
_GRACE_SECONDS = 5.0
"""A worker ends itself at its time limit, with a traceback; after this many more seconds it is
killed.
"""
_MEMORY_INTERVAL = 0.25
_LEAST_FREE_BYTES = 2**16
_LOG_BYTES = 8000
"""Bytes of the end of a log that are kept in the record of a failure."""


class JobProcess:
    """A job in its own process.

    Args:
        job: The job to run.
        store: Where the process writes its records. Its log is in the folder ``jobs`` there, and
            is kept unless it is empty.
        worker: Module that the process runs.
        environment: Environment of the process; this one's by default.

    Raises:
        OSError: The store cannot be written to.
    """

    def __init__(
        self,
        job: Job,
        store: Path,
        worker: str = WORKER,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.id = job_id(job)
        self._job = job
        self._began = time.monotonic()
        self._memory_checked = 0.0
        self._killed: tuple[Cause, str] | None = None
        self._oom_kills = _oom_kills()
        self._current_trial: str | None = None
        self._reported: Failed | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = claim(job, store)
        if isinstance(self._lock, str):
            return
        self._paths = {part: job_path(store, self.id, part) for part in ("lock", "log", "events")}
        try:
            with (
                private_file(self._paths["log"], "wb") as log,
                private_file(self._paths["events"], "wb") as events,
            ):
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-m", worker, str(store)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the study, which ends its jobs itself
                    pass_fds=[self._lock.fileno(), events.fileno()],
                    env={
                        **environment,
                        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                        "SOFTMAX_BENCH_EVENTS": str(events.fileno()),
                    },
                )
            self._events = EventLog(self._paths["events"])
        except BaseException:
            self._lock.close()
            raise
        self._write_job()

    def _write_job(self) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # it has already ended; poll() says how
            self._child.stdin.write(msgspec.json.encode(self._job) + b"\n")
            self._child.stdin.flush()

    def poll(self) -> list[Report | JobExit]:
        """Events of the process since the last call, and its end if it has ended."""
        if isinstance(self._lock, str):
            return [JobExit(self.id, self._lock)]
        assert self._child is not None
        status = self._child.poll()
        reports: list[Report | JobExit] = [Report(self.id, event) for event in self._read_events()]
        if status is None:
            self._enforce_limits()
            return reports
        return [*reports, self._end_of(status)]

    def kill(self) -> None:
        """End the process and everything it has started, and wait until they are gone."""
        if self._child is not None:
            self._kill_all()
            self._child.wait()
            self._close()

    def _read_events(self) -> list[Event]:
        events = self._events.read()
        for event in events:
            if isinstance(event, Running):
                self._current_trial = event.trial
            elif isinstance(event, Failed):
                self._reported = event
        return events

    def _enforce_limits(self) -> None:
        limits = self._job.limits
        now = time.monotonic()
        if self._killed is not None:
            return
        if limits.seconds is not None and now - self._began > limits.seconds + _GRACE_SECONDS:
            self._end("time", _too_long(limits.seconds))
        elif limits.bytes is not None and now - self._memory_checked > _MEMORY_INTERVAL:
            self._memory_checked = now
            assert self._child is not None
            used = _resident_bytes(self._child.pid)
            if used > limits.bytes:
                self._end(
                    "memory", f"used {used / 1e9:.3g} GB, its limit is {limits.bytes / 1e9:.3g} GB"
                )

    def _end(self, cause: Cause, reason: str) -> None:
        self._killed = cause, reason
        self._kill_all()

    def _kill_all(self) -> None:
        """Kill the process and everything it has started."""
        assert self._child is not None
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def _end_of(self, status: int) -> JobExit:
        seconds = time.monotonic() - self._began
        log = self._log_end()
        self._kill_all()  # leftovers of the process
        ended = self._exit(status, seconds, log)
        self._close()
        return ended

    def _exit(self, status: int, seconds: float, log: str) -> JobExit:
        if status == 0:
            for part in ("events", "lock", *(() if log else ("log",))):
                self._paths[part].unlink(missing_ok=True)
            return JobExit(self.id, "finished")
        if status == DISK_FULL or (
            status > 0
            and self._reported is None
            and shutil.disk_usage(self._paths["log"].parent).free < _LEAST_FREE_BYTES
        ):  # a worker without a last word had no disk space
            return JobExit(self.id, "disk full")
        cause, reason = self._cause(status, seconds)
        for part in ("events", "lock"):
            self._paths[part].unlink(missing_ok=True)
        trials = trials_of(self._job)
        blamed = trial_id(trials[0]) if len(trials) == 1 else self._current_trial
        return JobExit(self.id, "failed", Failure(cause, reason, seconds, log, blamed))

    def _cause(self, status: int, seconds: float) -> tuple[Cause, str]:
        if self._killed is not None:
            return self._killed
        if self._reported is not None:
            return self._reported.cause, self._reported.reason
        limit = self._job.limits.seconds
        if limit is not None and seconds >= limit:
            return "time", _too_long(limit)
        if status > 0:
            return "error", f"the process ended with status {status}"
        name = signal.Signals(-status).name
        if -status == signal.SIGKILL and _oom_kills() > self._oom_kills:
            return "memory", "killed by the system, which ran out of memory"
        if -status in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            return "killed", f"killed from outside by {name}"
        return "crash", f"the process crashed with {name}"

    def _log_end(self) -> str:
        with self._paths["log"].open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LOG_BYTES))
            return file.read().decode(errors="replace").strip()

    def _close(self) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        self._events.close()
        with suppress(BrokenPipeError):  # it ended without reading its job
            self._child.stdin.close()
        assert not isinstance(self._lock, str)
        self._lock.close()


def _resident_bytes(pid: int) -> int:
    """Resident bytes of a process and everything it has started."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory; 0 if unknown."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _too_long(seconds: float) -> str:
    return f"took longer than its limit of {seconds:g} s"
