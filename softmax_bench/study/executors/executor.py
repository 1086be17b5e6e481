"""The interface between a study and the machine or cluster that runs its jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from softmax_bench.study.jobs.job import Job, JobExit, Report


class Executor(Protocol):
    """Runs each job in its own process, and reports how it ends.

    An executor knows the store it works for. It guarantees that

    * a failing job affects neither other jobs nor the study;
    * when a job is reported as ended, its records are in the store;
    * every submitted job is reported as ended exactly once, and nothing is reported about it
      afterwards;
    * no job keeps running after :meth:`close`, or after the process that created the executor is
      gone; if jobs do outlive a killed study, they hold their locks in the store.

    It makes no decisions: the study decides which jobs there are, in which order, and whether to
    retry one. :class:`softmax_bench.study.jobs.process.JobProcess`, which runs one job where it is
    called, does most of the work, also for executors on other machines.
    """

    slots: int
    """Most jobs that may run at once."""

    def submit(self, job: Job) -> None:
        """Start a job soon. At most ``slots`` submitted jobs are unfinished at any time."""

    def wait(self, seconds: float) -> Sequence[Report | JobExit]:
        """Events of the jobs since the last call, and the jobs that have ended.

        Waits for at most ``seconds``, and returns early when a job ends.
        """

    def close(self) -> None:
        """End all jobs at once; another run may submit them again."""

    def __enter__(self) -> Self:
        """The executor."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()
