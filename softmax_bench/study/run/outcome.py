"""How a study ends: with an outcome, or without disk space."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from softmax_bench.records.record import FailureRecord
from softmax_bench.records.store import DiskFullError, disk_full


@dataclass(frozen=True)
class Outcome:
    """How a study ended."""

    done: int
    """Trials that have a result."""
    failures: dict[str, FailureRecord]
    """Trials without a result, by identity."""
    no_usable_rate: int
    """Trials not run because every learning rate failed."""
    waiting: int = 0
    """Trials not run because others, on which they depend, were killed."""

    @property
    def complete(self) -> bool:
        """Whether every trial of the study has a result."""
        return not (self.failures or self.no_usable_rate or self.waiting)


@contextmanager
def disk_space_errors(store: Path) -> Iterator[None]:
    """Raise a DiskFullError that says how to continue if ``store`` has no disk space left."""
    try:
        yield
    except (OSError, DiskFullError) as error:
        if not disk_full(error):
            raise
        raise DiskFullError(
            f"no disk space left in {store}: all written results are kept; free some space and "
            "repeat the command to continue"
        ) from error
