"""Notifications of a running study."""

from __future__ import annotations

from collections.abc import Sequence

from softmax_bench.records.record import FailureRecord, Record
from softmax_bench.study.jobs.job import Event
from softmax_bench.study.plan.plan import Step


class Watcher:
    """Is notified of everything that happens in a study; by itself does nothing."""

    def planned(self, steps: Sequence[Step]) -> None:
        """The state of all steps, at the start and after every step."""

    def note(self, text: str) -> None:
        """A message for the user."""

    def started(self, step: Step) -> None:
        """A step has started."""

    def reported(self, step: Step, event: Event) -> None:
        """A running step has reported something."""

    def finished(self, step: Step, records: Sequence[Record]) -> None:
        """A step has succeeded."""

    def failed(self, step: Step, failures: Sequence[FailureRecord]) -> None:
        """A step has failed, and each of these trials is to blame."""

    def postponed(self, step: Step) -> None:
        """A step does not start, because another study is running it."""

    def tick(self) -> None:
        """Called every few moments."""
