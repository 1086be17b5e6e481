"""What a job came to."""

from __future__ import annotations

from softmax_bench.study.executors.executor import Executor
from softmax_bench.study.jobs.job import Event, Job, JobExit


def ended(executor: Executor, job: Job) -> tuple[list[type[Event]], JobExit]:
    """What kinds of events are told of a job, and its end."""
    executor.submit(job)
    kinds: list[type[Event]] = []
    while True:
        for report in executor.wait(60):
            if isinstance(report, JobExit):
                return kinds, report
            kinds.append(type(report.event))
