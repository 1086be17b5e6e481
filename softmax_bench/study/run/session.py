"""Runs a plan: submits what is due, stores failures, and plans again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from softmax_bench.records.record import FROM_OUTSIDE, FailureRecord, Record, Stored
from softmax_bench.records.store import (
    DamagedRecordError,
    DiskFullError,
    LaterRecordError,
    checkpoint_path,
    read_record,
    read_store,
    record_path,
    set_aside,
    write_record,
)
from softmax_bench.records.trial import trial_id, trial_kind
from softmax_bench.study.executors.executor import Executor
from softmax_bench.study.jobs.job import Failure, JobExit, Report, job_id, needs_quiet, trials_of
from softmax_bench.study.plan.plan import Plan, State, Step, ids_of
from softmax_bench.study.run.outcome import Outcome, disk_space_errors
from softmax_bench.study.run.watcher import Watcher

S = TypeVar("S", bound=Stored)

_WAIT_SECONDS = 0.25
_QUIET_WAIT_SECONDS = 1.0
"""Longer while layers are timed, because waking up disturbs them."""
_ELSEWHERE_SECONDS = 2.0
"""Seconds between two looks at another study's work."""


def run(
    plan: Plan,
    store: Path,
    executor: Executor,
    watchers: Sequence[Watcher] = (),
    *,
    again: bool = False,
    retry_failed: bool = False,
) -> Outcome:
    """Run the planned trials that are not yet stored.

    Trials that failed before are not retried, except those that were killed from outside.

    Args:
        plan: The jobs to do.
        store: Where results are read from and written to.
        executor: Runs the jobs, for this store.
        watchers: Objects that are notified of what happens.
        again: Re-run stored trials too.
        retry_failed: Re-run failed trials too.

    Raises:
        DiskFullError: There is no disk space left. Stored results are kept.
        LaterRecordError: The store holds a record of a later version.
    """
    session = _Session(plan, store, executor, watchers)
    with disk_space_errors(store):
        session.load(again=again, retry_failed=retry_failed)
        return session.run()


class _Session:
    def __init__(
        self, plan: Plan, store: Path, executor: Executor, watchers: Sequence[Watcher]
    ) -> None:
        self._plan, self._store, self._executor = plan, store, executor
        self._watchers = watchers
        self._again = False
        self._before: dict[str, Stored] = {}
        """What the store held at the start."""
        self._done: dict[str, Record] = {}
        self._failed: dict[str, FailureRecord] = {}
        self._stopped: dict[str, FailureRecord] = {}
        """Trials killed during this run; what depends on them waits for the next run."""
        self._running: dict[str, Step] = {}
        self._elsewhere: dict[str, float] = {}
        """Jobs that another study is running, and when to check them again."""

    def load(self, *, again: bool, retry_failed: bool) -> None:
        contents = read_store(self._store)
        contents.refuse_later()  # such a trial would run again and replace the record
        for path in set_aside(contents.damaged):
            self._note(f"a damaged record was set aside as {path}; its trial is run again")
        self._again = again
        self._before = {**contents.records, **contents.failures}
        if again:
            return
        self._done = contents.records
        for identity in self._done:  # left by a process that was killed while writing its last line
            checkpoint_path(self._store, identity).unlink(missing_ok=True)
        if not retry_failed:
            self._failed = {
                identity: failure
                for identity, failure in contents.failures.items()
                if failure.cause not in FROM_OUTSIDE
            }

    def run(self) -> Outcome:
        steps, changed = self._planned(), True
        while True:
            if changed:  # not at every look: to name all trials takes milliseconds
                for step in self._startable(steps):
                    self._start(step)
            if not self._running and not self._elsewhere:
                return self._outcome(steps)
            changed = False
            for report in self._wait():
                if isinstance(report, JobExit):
                    self._end(report)
                    changed = True
                else:
                    self._pass_on(report)
            for watcher in self._watchers:
                watcher.tick()
            changed |= self._look_elsewhere()
            if changed:
                steps = self._planned()

    def _planned(self) -> Sequence[Step]:
        stopped = self._stopped.keys()
        steps = [
            step if stopped.isdisjoint(ids_of(step)) else replace(step, state=State.FAILED)
            for step in self._plan(self._done, self._failed)
        ]
        for watcher in self._watchers:
            watcher.planned(steps)
        return steps

    def _startable(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Due steps for which there is room; those that need quiet come last and run alone."""
        taken = {identity for step in self._running.values() for identity in ids_of(step)}
        due = [
            step
            for step in steps
            if step.state is State.DUE
            and taken.isdisjoint(ids_of(step))
            and job_id(step.job) not in self._elsewhere
        ]
        noisy = [step for step in due if not needs_quiet(step.job)]
        quiet_runs = any(needs_quiet(step.job) for step in self._running.values())
        if noisy and not quiet_runs:
            yield from noisy[: self._executor.slots - len(self._running)]
        elif due and not noisy and not self._running:
            yield due[0]

    def _start(self, step: Step) -> None:
        self._executor.submit(msgspec.structs.replace(step.job, again=self._again))
        self._running[job_id(step.job)] = step
        for watcher in self._watchers:
            watcher.started(step)

    def _wait(self) -> Sequence[Report | JobExit]:
        quiet = any(needs_quiet(step.job) for step in self._running.values())
        if not self._running:
            time.sleep(_WAIT_SECONDS)
            return []
        return self._executor.wait(_QUIET_WAIT_SECONDS if quiet else _WAIT_SECONDS)

    def _pass_on(self, report: Report) -> None:
        for watcher in self._watchers:
            watcher.reported(self._running[report.job], report.event)

    def _end(self, ended: JobExit) -> None:
        step = self._running.pop(ended.job)
        if ended.how == "disk full":
            raise DiskFullError(f"{step.title} found no disk space left")
        if ended.how == "locked":
            self._elsewhere[ended.job] = time.monotonic() + _ELSEWHERE_SECONDS
            for watcher in self._watchers:
                watcher.postponed(step)
        elif ended.failure is not None:
            self._fail(step, ended.failure)
        else:
            self._finish(step)

    def _finish(self, step: Step) -> None:
        records = [self._stored(identity) for identity in ids_of(step)]
        stored = [record for record in records if record is not None]
        if len(stored) < len(records):
            reason = "the process succeeded, but its record is not in the store"
            self._fail(step, Failure("error", reason, 0.0, ""))
            return
        self._done |= {record.id: record for record in stored}
        for watcher in self._watchers:
            watcher.finished(step, stored)

    def _stored(self, identity: str) -> Record | None:
        try:
            record = read_record(record_path(self._store, identity))
        except (FileNotFoundError, DamagedRecordError, LaterRecordError):
            return None
        return None if isinstance(record, FailureRecord) else record

    def _fail(self, step: Step, failure: Failure) -> None:
        started = datetime.now(UTC) - timedelta(seconds=failure.seconds)
        failures = [
            FailureRecord(
                id=trial_id(trial),
                started=started.isoformat(timespec="seconds"),
                of=trial_kind(trial),
                configuration=msgspec.to_builtins(trial),
                cause=failure.cause,
                reason=failure.reason,
                seconds=round(failure.seconds, 3),
                log=failure.log,
            )
            for trial in trials_of(step.job)
            if failure.trial in (None, trial_id(trial))
        ]
        for record in failures:
            write_record(self._store, record)
            failed = self._stopped if record.cause in FROM_OUTSIDE else self._failed
            failed[record.id] = record
        for watcher in self._watchers:
            watcher.failed(step, failures)

    def _look_elsewhere(self) -> bool:
        """Check whether another study has finished its work; if not, try it here again."""
        now, changed = time.monotonic(), False
        for job in [job for job, when in self._elsewhere.items() if now >= when]:
            del self._elsewhere[job]
            changed = True
        if changed:
            contents = read_store(self._store)
            self._done = self._new(contents.records) | self._done
            self._failed |= {
                identity: failure
                for identity, failure in self._new(contents.failures).items()
                if failure.cause not in FROM_OUTSIDE
            }
        return changed

    def _new(self, stored: dict[str, S]) -> dict[str, S]:
        """What has been stored since the start."""
        return {
            identity: record
            for identity, record in stored.items()
            if self._before.get(identity) != record
        }

    def _outcome(self, steps: Sequence[Step]) -> Outcome:
        identities = [identity for step in steps for identity in ids_of(step)]
        failed = self._failed | self._stopped
        states = Counter(step.state for step in steps)
        return Outcome(
            done=len(set(identities) & set(self._done)),
            failures={i: failed[i] for i in dict.fromkeys(identities) if i in failed},
            no_usable_rate=states[State.NO_USABLE_RATE],
            waiting=states[State.WAITING],
        )

    def _note(self, text: str) -> None:
        for watcher in self._watchers:
            watcher.note(text)
