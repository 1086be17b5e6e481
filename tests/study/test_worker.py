"""What a job's process says of the ways in which its work can end."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.lm import DivergedError
from softmax_bench.study.jobs import worker
from softmax_bench.study.jobs.job import Event, Failed
from softmax_bench.study.jobs.process import DISK_FULL
from tests.study.jobs import train_job


def outcome(error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[Event]]:
    def run(*_: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(worker, "_run", run)
    told: list[Event] = []
    return worker._outcome(train_job("full"), Path(), told.append), told


def test_a_job_that_goes_well(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(None, monkeypatch) == (0, [])


@pytest.mark.parametrize(
    ("error", "cause", "reason"),
    [
        (DivergedError("the loss is nan"), "diverged", "the loss is nan"),
        (SoftmaxBenchError("no such thing"), "error", "no such thing"),
        (ZeroDivisionError("by zero"), "error", "ZeroDivisionError: by zero"),
        (MemoryError(), "memory", "out of memory: "),
        (RuntimeError("[enforce fail] not enough memory: you tried"), "memory", "out of memory: "),
    ],
)
def test_an_exception_has_a_cause(
    error: Exception,
    cause: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, (told,) = outcome(error, monkeypatch)
    assert status == 1
    assert isinstance(told, Failed)
    assert told.cause == cause
    assert told.reason.startswith(reason)
    assert type(error).__name__ in capsys.readouterr().err


def test_a_full_disk_is_no_failure_of_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert outcome(full, monkeypatch) == (DISK_FULL, [])
    wrapped = SoftmaxBenchError("the checkpoint cannot be written")
    wrapped.__cause__ = OSError("I/O error: No space left on device (os error 28)")
    assert outcome(wrapped, monkeypatch) == (DISK_FULL, [])

    class FullLog:
        def write(self, text: str) -> int:
            raise full

    monkeypatch.setattr(sys, "stderr", FullLog())
    with pytest.raises(OSError, match="No space left"):  # for main() to tell
        outcome(ZeroDivisionError(), monkeypatch)
