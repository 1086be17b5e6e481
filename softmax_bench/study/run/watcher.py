"""What a study tells of itself while it runs."""

from __future__ import annotations

from collections.abc import Sequence

from softmax_bench.records.record import FailureRecord, Record
from softmax_bench.study.jobs.job import Event
from softmax_bench.study.plan.plan import Step


class Watcher:
    """Hears of everything that happens in a study; does nothing about it by itself."""

    def planned(self, steps: Sequence[Step]) -> None:
        """How things stand with all steps: at the beginning and after every end of one."""

    def note(self, text: str) -> None:
        """Something that a person should know."""

    def started(self, step: Step) -> None:
        """A step runs from now on."""

    def told(self, step: Step, event: Event) -> None:
        """A running step has told something."""

    def finished(self, step: Step, records: Sequence[Record]) -> None:
        """A step has ended well."""

    def failed(self, step: Step, failures: Sequence[FailureRecord]) -> None:
        """A step has ended badly: each of these trials is to blame."""

    def postponed(self, step: Step) -> None:
        """A step does not run: another study has it in work."""

    def tick(self) -> None:
        """Some moments have passed."""
