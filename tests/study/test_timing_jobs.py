"""Layers are timed again where others disturbed it, and threads wait as the machine asks for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from softmax_bench.records.record import SpeedRecord
from softmax_bench.records.store import read_store
from softmax_bench.study.jobs import calm, timing
from softmax_bench.study.jobs.calm import CalmWatch, wait_passively
from softmax_bench.study.jobs.job import Disturbed, JobExit, Report
from softmax_bench.study.jobs.timing import RETIMINGS, start_job
from tests.study.jobs import WORKER, speed_job, train_job


class Weather:
    """Whether the machine is calm, for as often as it is asked; the last answer stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *calm: bool) -> None:
        self.calm = list(calm)
        monkeypatch.setattr(timing, "is_calm", self.ask)
        monkeypatch.setattr(CalmWatch, "calm", lambda watch: self.ask())
        for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
            monkeypatch.delenv(name, raising=False)

    def ask(self) -> bool:
        return self.calm.pop(0) if len(self.calm) > 1 else self.calm[0]


def run(store: Path, layer: str) -> tuple[int, bool, str]:
    """How often it was timed again, whether what is stored is disturbed, and how threads waited."""
    process = start_job(speed_job(layer), store, WORKER)
    reports: list[Report | JobExit] = []
    while not any(isinstance(report, JobExit) for report in reports):
        reports += process.poll()
        time.sleep(0.01)
    assert reports[-1] == JobExit(process.id, "finished")
    (record,) = read_store(store).records.values()
    assert isinstance(record, SpeedRecord)
    assert record.result.disturbance is not None
    again = [one for one in reports if isinstance(one, Report) and isinstance(one.event, Disturbed)]
    waiting = record.environment.variables["OMP_WAIT_POLICY"]
    return len(again), record.result.disturbance.by_others, waiting


def test_on_a_calm_machine_layers_are_timed_once_and_threads_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Weather(monkeypatch, True)
    assert run(tmp_path, "full") == (0, False, "")


def test_what_was_disturbed_is_timed_again_when_the_machine_is_calm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Weather(monkeypatch, False, False, False, True)
    assert run(tmp_path, "is disturbed once") == (1, False, "")


def test_a_machine_that_stays_busy_is_timed_with_passive_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once where it was busy from the start, and once more where it was not."""
    Weather(monkeypatch, False)
    assert run(tmp_path / "before", "is disturbed") == (1, True, "passive")
    Weather(monkeypatch, True, False)
    assert run(tmp_path / "meanwhile", "is disturbed") == (1, True, "passive")


def test_timing_again_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is calm whenever it is asked, and never while layers are timed."""
    Weather(monkeypatch, True)
    assert run(tmp_path, "is disturbed") == (RETIMINGS, True, "")


def test_a_process_that_waits_is_ended_by_nobody_else_s_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Weather(monkeypatch, False)
    process = start_job(speed_job("is disturbed"), tmp_path, WORKER)
    while not any(
        isinstance(one, Report) and isinstance(one.event, Disturbed) for one in process.poll()
    ):
        time.sleep(0.01)
    process.kill()  # the process has ended: its id may be another's by now


def test_what_only_trains_waits_passively_unless_somebody_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wait_passively({}) == {"OMP_WAIT_POLICY": "passive"}
    for chosen in ({"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}):
        assert wait_passively(chosen) == chosen
    given: list[object] = []
    monkeypatch.setattr(timing, "JobProcess", lambda *arguments: given.append(arguments[-1]))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    start_job(train_job("full"), tmp_path, WORKER)
    (environment,) = given
    assert isinstance(environment, dict)
    assert environment["OMP_WAIT_POLICY"] == "passive"


@pytest.mark.parametrize(("per_cent", "expected"), [(4.0, True), (6.0, False)])
def test_calm_is_below_what_marks_a_timing(
    monkeypatch: pytest.MonkeyPatch, per_cent: float, expected: bool
) -> None:
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: per_cent)
    assert calm.is_calm() is expected
    watch = CalmWatch()
    assert not watch.calm()  # too soon to tell
    watch._looked -= 2.0
    assert watch.calm() is expected
