"""Jobs by way of submitit, with its own processes in place of a Slurm cluster."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.records.store import checkpoint_path, read_store
from softmax_bench.records.trial import trial_id
from softmax_bench.study.executors import on_slurm
from softmax_bench.study.executors.on_slurm import SlurmExecutor
from softmax_bench.study.jobs.job import Evaluated, JobExit, Progress, Running
from softmax_bench.study.jobs.lock import claim
from tests.study.ended import ended
from tests.study.jobs import WORKER, speed_job, train_job
from tests.study.killed import killed_study

ROOT = Path(__file__).parents[2]

pytest.importorskip("submitit")
pytestmark = [
    pytest.mark.slow,
    # Processes that submitit leaves to the end of Python.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _jobs_can_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_jobs_by_way_of_submitit(tmp_path: Path) -> None:
    with SlurmExecutor(tmp_path, 2, "local", WORKER) as executor:
        job = train_job("tells")
        kinds, end = ended(executor, job)
        # The node may have cleared its file away before it was read to the end.
        assert kinds == [Running, Progress, Evaluated][: len(kinds)]
        assert end == ended(executor, job)[1] == JobExit(trial_id(job.trial), "finished")
        assert ended(executor, speed_job("full", "nce"))[1].how == "finished"
        assert len(read_store(tmp_path).records) == 3
        crashed = ended(executor, train_job("crashes"))[1].failure
        assert crashed is not None
        assert (crashed.cause, crashed.log) == ("crash", "last words")
    assert list((tmp_path / "slurm").glob("*.job")) == []
    assert list((tmp_path / "slurm").glob("*.ended")) == []


def test_a_job_that_is_lost_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_slurm, "_SILENT_SECONDS", 0.5)
    with SlurmExecutor(tmp_path, 1, "local", WORKER) as executor:
        lost = ended(executor, train_job("kills who started it"))[1].failure
    assert lost is not None
    assert lost.cause == "lost"
    assert "ended without reporting how" in lost.reason


def test_a_preempted_job_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    job = train_job("goes on")
    path = checkpoint_path(tmp_path, trial_id(job.trial))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"first")
    with SlurmExecutor(tmp_path, 1, "local", WORKER) as executor:
        executor.submit(job)
        while path.read_bytes() != b"first, second":
            assert not any(isinstance(report, JobExit) for report in executor.wait(0.1))
        (task,) = psutil.Process().children()[0].children()
        task.send_signal(signal.SIGUSR2)  # what Slurm sends before it takes the node away
        end = next(
            report
            for _ in range(600)
            for report in executor.wait(0.1)
            if isinstance(report, JobExit)
        )
    assert end == JobExit(trial_id(job.trial), "finished")


def test_jobs_go_on_when_the_study_is_killed_and_are_not_done_twice(tmp_path: Path) -> None:
    options = '1, "local", WORKER'
    with killed_study(tmp_path, "SlurmExecutor", "on_slurm", options, "takes a while"):
        pass
    job = train_job("takes a while")
    with SlurmExecutor(tmp_path, 1, "local", WORKER) as executor:
        assert ended(executor, job)[1].how == "locked"
        until = time.monotonic() + 60
        while claim(job, tmp_path) == "locked":
            assert time.monotonic() < until
            time.sleep(0.2)
        assert ended(executor, job)[1].how == "finished"
    assert len(list((tmp_path / "slurm").glob("*_submitted.pkl"))) == 1


def test_without_slurm_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SoftmaxBenchError, match="--address local"):
        SlurmExecutor(tmp_path)
