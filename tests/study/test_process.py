"""A job in a process of its own, and what becomes of jobs that go wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from softmax_bench.records.store import read_store
from softmax_bench.records.trial import trial_id
from softmax_bench.study.executors.local import LocalExecutor
from softmax_bench.study.jobs.job import Evaluated, Failure, Job, JobExit, Progress, Report, Running
from softmax_bench.study.jobs.process import JobProcess
from tests.study.jobs import WORKER, speed_job, train_job


def run(store: Path, job: Job) -> list[Report | JobExit]:
    reports: list[Report | JobExit] = []
    with LocalExecutor(store, worker=WORKER) as executor:
        executor.submit(job)
        while not any(isinstance(report, JobExit) for report in reports):
            reports += executor.wait(60)
    return reports


def failure_of(store: Path, job: Job) -> Failure:
    ended = run(store, job)[-1]
    assert isinstance(ended, JobExit)
    assert ended.how == "failed"
    assert ended.failure is not None
    return ended.failure


def test_a_job_writes_its_record_and_tells_how_it_goes(tmp_path: Path) -> None:
    job = train_job("tells")
    reports = run(tmp_path, job)
    events = [report.event for report in reports if isinstance(report, Report)]
    assert [type(event) for event in events] == [Running, Progress, Evaluated]
    assert reports[-1] == JobExit(trial_id(job.trial), "finished")
    assert set(read_store(tmp_path).records) == {trial_id(job.trial)}
    assert list((tmp_path / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    ("layer", "cause", "reason"),
    [
        ("crashes", "crash", "SIGSEGV"),
        ("is killed", "killed", "killed from outside by SIGKILL"),
        ("diverges", "diverged", "the loss is nan"),
    ],
)
def test_why_a_job_failed(tmp_path: Path, layer: str, cause: str, reason: str) -> None:
    failure = failure_of(tmp_path, train_job(layer))
    assert failure.cause == cause
    assert reason in failure.reason
    assert read_store(tmp_path).records == {}


def test_the_log_is_kept(tmp_path: Path) -> None:
    job = train_job("crashes")
    assert failure_of(tmp_path, job).log == "last words"
    log = tmp_path / "jobs" / f"{trial_id(job.trial)}.log"
    assert log.read_text() == "last words\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_job_may_not_take_more_memory_than_its_limit(tmp_path: Path) -> None:
    failure = failure_of(tmp_path, train_job("eats memory", bytes=120_000_000))
    assert failure.cause == "memory"
    assert "its limit is 0.12 GB" in failure.reason


def test_a_job_may_not_take_longer_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softmax_bench.study.jobs.process._GRACE_SECONDS", 0.1)
    failure = failure_of(tmp_path, train_job("hangs", seconds=0.5))
    assert failure.cause == "time"
    assert failure.reason == "took longer than its limit of 0.5 s"


def test_the_layer_to_blame_is_the_one_whose_turn_it_was(tmp_path: Path) -> None:
    job = speed_job("full", "crashes", "nce")
    assert failure_of(tmp_path, job).trial == trial_id(job.trials[1])


def test_no_space_left_is_told_apart(tmp_path: Path) -> None:
    job = train_job("fills the disk")
    assert run(tmp_path, job)[-1] == JobExit(trial_id(job.trial), "disk full")


def test_a_job_that_is_in_work_is_not_started_again(tmp_path: Path) -> None:
    job = train_job("hangs")
    first = JobProcess(job, tmp_path, WORKER)
    second = JobProcess(job, tmp_path, WORKER)
    assert second.poll() == [JobExit(first.id, "locked")]
    second.kill()
    first.kill()
    third = JobProcess(job, tmp_path, WORKER)
    assert third.poll() == []
    third.kill()


def test_closing_ends_all_jobs(tmp_path: Path) -> None:
    with LocalExecutor(tmp_path, slots=2, worker=WORKER) as executor:
        executor.submit(train_job("hangs"))
        executor.submit(train_job("hangs", rate=0.2))
        children = psutil.Process().children()
        assert len(children) == 2
    assert not any(child.is_running() for child in children)


def test_no_job_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from softmax_bench.study.jobs.process import JobProcess\n"
        "from tests.study.jobs import WORKER, train_job\n"
        f"process = JobProcess(train_job('hangs'), Path({str(tmp_path)!r}), WORKER)\n"
        "while not process.poll(): time.sleep(0.01)\n"
        "print(process._child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    study = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert study.stdout is not None
    job = psutil.Process(int(study.stdout.readline()))
    study.send_signal(signal.SIGKILL)
    study.wait()
    study.stdout.close()
    psutil.wait_procs([job], timeout=60)
    assert not job.is_running() or job.status() == psutil.STATUS_ZOMBIE
    time.sleep(0)
