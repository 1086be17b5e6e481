"""Where jobs run: what a study asks of a machine or a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from softmax_bench.study.jobs.job import Ended, Job, Report


class Executor(Protocol):
    """Runs jobs, each in a process of its own, and reports how they end.

    An executor knows the store it works for. It promises that

    * a job takes down no other and not the study, whatever happens to it;
    * when a job is reported to have ended, the records it wrote lie in the store;
    * each job that was submitted is reported to have ended once, and nothing is reported of it
      after that;
    * after :meth:`close`, or when the process that made the executor is gone, no job runs on; or,
      where jobs outlive a study that is killed, they hold their locks in the store meanwhile.

    It decides nothing: which jobs there are, in which order, and whether to try one again is up to
    the study. :class:`softmax_bench.study.jobs.process.JobProcess` does most of the work for
    executors on other machines too: it runs one job where it is called.
    """

    slots: int
    """How many jobs may run at once."""

    def submit(self, job: Job) -> None:
        """Begin a job soon. There are never more than ``slots`` that have not ended."""

    def wait(self, seconds: float) -> Sequence[Report | Ended]:
        """What jobs have told since the last call, and which have ended.

        Waits for at most ``seconds``, and returns early when a job ends.
        """

    def close(self) -> None:
        """End all jobs at once; they may be submitted again in another session."""

    def __enter__(self) -> Self:
        """The executor."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()
