"""Jobs as tasks of a Ray cluster.

Each task runs its job as a process of its node, in a private store, and streams back the job's
events, checkpoints and records, which the study's process puts into its store. Nodes need this
package and the study's texts, but no shared folder.

Tasks receive and return bytes (:mod:`softmax_bench.study.executors.parcel`), so our data does not
depend on the pickles in which Ray transports them. Ray's usage messages are turned off.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.measure import usable_cores
from softmax_bench.records.record import Cause
from softmax_bench.study.executors.executor import Executor
from softmax_bench.study.executors.parcel import pack, unpack, work
from softmax_bench.study.jobs.job import Failure, Job, JobExit, Report, job_id
from softmax_bench.study.jobs.lock import claim, job_path
from softmax_bench.study.jobs.process import WORKER
from softmax_bench.study.jobs.resources import resources_of, with_absolute_paths

RETRIES = 3
"""Most retries of a job whose node was lost, or ran out of memory or disk space."""
_CLOSE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class RayExecutor(Executor):
    """Runs jobs on a Ray cluster.

    A job whose node is lost is sent to another, up to :data:`RETRIES` times, with its last
    checkpoint. Ray ends tasks when the process that started them is gone.

    Args:
        store: Where records are written on this machine.
        slots: Number of jobs at once; those that do not fit the cluster wait in its queue.
        address: Address of a running cluster that includes this machine, or ``"auto"`` for the one
            started here; None starts Ray on this machine alone until the executor closes.
        worker: Module that the processes of jobs run.

    Raises:
        SoftmaxBenchError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self, store: Path, slots: int = 1, address: str | None = None, worker: str = WORKER
    ) -> None:
        self.slots = slots
        self._store = store
        self._worker = worker
        self._tasks: list[_Task] = []
        self._exits: list[JobExit] = []
        self._ray = _start_ray(address)

    def submit(self, job: Job) -> None:
        """Send a job to the cluster.

        Raises:
            SoftmaxBenchError: No node is large enough for it.
        """
        lock = claim(job, self._store)
        if isinstance(lock, str):
            self._exits.append(JobExit(job_id(job), lock))
            return
        task = _Task(with_absolute_paths(job), lock)
        try:
            self._send(task)
        except BaseException:
            lock.close()
            raise
        self._tasks.append(task)

    def wait(self, seconds: float) -> list[Report | JobExit]:
        """See :class:`softmax_bench.study.executors.executor.Executor`."""
        until = time.monotonic() + seconds
        reports: list[Report | JobExit] = [*self._exits]
        self._exits.clear()
        while self._tasks and not any(isinstance(report, JobExit) for report in reports):
            left = until - time.monotonic()
            if left <= 0:
                break
            streams = [task.stream for task in self._tasks]
            ready, _ = self._ray.wait(streams, timeout=left)
            for task in [task for task in self._tasks if task.stream in ready]:
                reports += self._receive(task)
        return reports

    def close(self) -> None:
        """Cancel all tasks, and leave the cluster."""
        for task in self._tasks:
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(task.stream)
        if self._tasks:  # so that each can clean up on its node
            ends = [task.stream.completed() for task in self._tasks]
            self._ray.wait(ends, num_returns=len(ends), timeout=_CLOSE_SECONDS)
        for task in self._tasks:
            task.lock.close()
        self._tasks.clear()
        self._ray.shutdown()

    def _send(self, task: _Task) -> None:
        options = self._options(task.job)
        order = pack(task.job, self._store, self._worker)
        task.stream = self._ray.remote(work).options(**options).remote(order)

    def _options(self, job: Job) -> dict[str, Any]:
        """Resources to request from Ray, without retries, which we count ourselves."""
        resources = resources_of(job)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = resources.threads
        if resources.whole_node:
            # The largest kind of node, so that times come from one kind of machine.
            cpus = max([cpus, *(int(node.get("CPU", 0)) for node in nodes)])
        request = {"CPU": cpus, "GPU": resources.gpus, "memory": resources.bytes or 0}
        if not any(_fits(request, node) for node in nodes):
            raise SoftmaxBenchError(
                f"no node of the Ray cluster has the {_describe(request)} that a trial needs; "
                f"nodes: {'; '.join(map(_describe, nodes)) or 'none'}"
            )
        return {
            "num_cpus": request["CPU"],
            "num_gpus": request["GPU"],
            "memory": request["memory"] or None,
            "max_retries": 0,
            "name": f"softmax-bench {job_id(job)}",
        }

    def _receive(self, task: _Task) -> list[Report | JobExit]:
        """Handle one message of a task, or the reason why there is none."""
        errors = self._ray.exceptions
        try:
            received = unpack(self._ray.get(next(task.stream)), task.job, self._store)
        except StopIteration:
            return self._lost(task, "lost", "the task ended without a result")
        except errors.RayTaskError as error:
            return self._end(task, _failed(task, "error", f"on its node: {error.cause!r}"))
        except errors.OutOfMemoryError:
            return self._lost(task, "memory", "its node ran out of memory")
        except errors.WorkerCrashedError:
            return self._lost(task, "lost", "its Ray worker was killed")
        except errors.RayError as error:
            return self._lost(task, "lost", f"its node was lost ({type(error).__name__})")
        if not isinstance(received, JobExit):
            return [] if received is None else [Report(job_id(task.job), received)]
        if received.how == "disk full":
            return self._lost(task, "lost", "its node had no disk space left for temporary files")
        return self._end(task, received)

    def _lost(self, task: _Task, cause: Cause, reason: str) -> list[Report | JobExit]:
        """Send the job again, or give up."""
        if task.lost < RETRIES:
            task.lost += 1
            _log.warning(
                "%s: %s; it is sent again (%d of %d)", job_id(task.job), reason, task.lost, RETRIES
            )
            try:
                self._send(task)
            except SoftmaxBenchError as error:
                return self._end(task, _failed(task, cause, f"{reason}; {error}"))
            return []
        return self._end(task, _failed(task, cause, f"{reason}, {RETRIES + 1} times"))

    def _end(self, task: _Task, ended: JobExit) -> list[Report | JobExit]:
        self._tasks.remove(task)
        job_path(self._store, job_id(task.job), "lock").unlink(missing_ok=True)
        task.lock.close()
        return [ended]


@dataclass(eq=False)
class _Task:
    """A submitted job."""

    job: Job
    lock: IO[bytes]
    stream: Any = None
    """Its stream of messages."""
    lost: int = 0
    """How often its node was lost."""
    began: float = field(default_factory=time.monotonic)


def _start_ray(address: str | None) -> Any:
    if address is not None and address.startswith("ray://"):
        raise SoftmaxBenchError(
            f"{address}: run the command on a node of the cluster, with --address auto"
        )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing leaves this machine
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray expects it
    try:
        ray = import_module("ray")
    except ImportError:
        raise SoftmaxBenchError("Ray is not installed: pip install 'softmax-bench[ray]'") from None
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        ray.init("local", num_cpus=usable_cores(), include_dashboard=False, **quiet)
        return ray
    try:
        ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SoftmaxBenchError(f"there is no Ray cluster at {address}: {error}") from error
    return ray


def _fits(request: Mapping[str, float], node: Mapping[str, float]) -> bool:
    return all(node.get(name, 0) >= amount for name, amount in request.items())


def _describe(node: Mapping[str, float]) -> str:
    memory = node.get("memory", 0)
    return (
        f"{node.get('CPU', 0):g} CPUs"
        + (f", {node['GPU']:g} GPUs" if node.get("GPU") else "")
        + (f", {memory / 1e9:.3g} GB" if memory else "")
    )


def _failed(task: _Task, cause: Cause, reason: str) -> JobExit:
    seconds = time.monotonic() - task.began
    return JobExit(job_id(task.job), "failed", Failure(cause, reason, seconds, ""))
