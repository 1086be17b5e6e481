"""Studies on a Ray cluster: two nodes on this machine, one of which is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.records.record import TrainRecord
from softmax_bench.records.store import read_store
from softmax_bench.records.trial import trial_id
from softmax_bench.study.executors.local import LocalExecutor
from softmax_bench.study.executors.on_ray import RayExecutor
from softmax_bench.study.jobs import process
from softmax_bench.study.jobs.job import Evaluated, Event, JobExit, Progress, Running, job_id
from softmax_bench.study.jobs.lock import claim
from softmax_bench.study.plan.grid import plan_study, sources
from softmax_bench.study.plan.plan import Step
from softmax_bench.study.run.session import run
from softmax_bench.study.run.watcher import Watcher
from softmax_bench.study.study import Study
from softmax_bench.study.texts import summarise_text
from tests.records import learned
from tests.study.ended import ended
from tests.study.jobs import WORKER, speed_job, train_job
from tests.study.killed import killed_study

ROOT = Path(__file__).parents[2]

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    # Ray's own: files and processes that it leaves to the end of Python.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Cluster:
    """A head and two nodes on this machine; tasks go to either of the two."""

    def __init__(self, cpus: int) -> None:
        from ray.cluster_utils import Cluster

        node: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": 80 * 2**20}
        self._cluster = Cluster(
            initialize_head=True, head_node_args=node | {"num_cpus": 0, "include_dashboard": False}
        )
        self._nodes = [self._cluster.add_node(**node) for _ in range(2)]
        self.address: str = self._cluster.address

    def lose_the_node_that_works(self) -> None:
        """As if its machine were switched off."""
        for node in self._nodes:
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            if workers_of(raylet):
                self._cluster.remove_node(node, allow_graceful=False)
                return

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell script
    made = Cluster(request.param)
    signal.signal(signal.SIGINT, before)
    yield made
    made.close()


class LosesANode(Watcher):
    """Switches the node off that trains the first model, in the middle."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.lost: str | None = None
        self.finished_jobs: list[str] = []

    def reported(self, step: Step, event: Event) -> None:
        if isinstance(event, Evaluated) and self.lost is None:
            self.lost = job_id(step.job)
            self._cluster.lose_the_node_that_works()

    def finished(self, step: Step, records: Any) -> None:
        self.finished_jobs.append(job_id(step.job))


def learned_in(store: Path) -> dict[str, Any]:
    """What training came to, without times."""
    records = read_store(store).records.values()
    return {one.id: learned(one) for one in records if isinstance(one, TrainRecord)}


@pytest.mark.parametrize("cluster", [1], indirect=True, ids=["1 CPU a node"])
def test_a_study_whose_node_is_lost_ends_like_one_on_this_machine(
    cluster: Cluster,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # the text is known by a relative path, which nodes do not have
    Path("text.txt").write_text("\n".join(f"a{i % 7} b{i % 11} c{i % 13}" for i in range(9000)))
    study = msgspec.convert(
        {
            "corpora": ["text.txt"],
            "vocab_sizes": ["all"], "layers": ["full", "nce"], "threads": 1, "hidden_size": 8,
            "max_tokens": [25_000], "batch_size": 4, "bptt": 5,
            "checkpoint_seconds": 0.1, "time_budget": 0,
        },
        Study,
    )  # fmt: skip
    plan = plan_study(study, [summarise_text(source) for source in sources(study)])
    watcher = LosesANode(cluster)
    with RayExecutor(tmp_path / "ray", 1, cluster.address) as executor:
        outcome = run(plan, tmp_path / "ray", executor, [watcher])
    assert "its node was lost" in caplog.text
    assert outcome.complete
    assert outcome.done == 2 + 2  # trained, counted
    assert len(set(watcher.finished_jobs)) == len(watcher.finished_jobs) == 2 + 2
    trained = read_store(tmp_path / "ray").records[str(watcher.lost)]
    assert isinstance(trained, TrainRecord)
    assert trained.result.resumed == 1  # from the checkpoint that had come
    with LocalExecutor(tmp_path / "here") as local:
        run(plan, tmp_path / "here", local)
    assert learned_in(tmp_path / "ray") == learned_in(tmp_path / "here")
    assert (
        read_store(tmp_path / "ray").records.keys() == read_store(tmp_path / "here").records.keys()
    )
    assert list((tmp_path / "ray" / "jobs").glob("*.lock")) == []
    assert list((tmp_path / "ray" / "checkpoints").glob("*")) == []


@pytest.mark.parametrize("cluster", [2], indirect=True, ids=["2 CPUs a node"])
def test_jobs_on_a_cluster(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RayExecutor(tmp_path, 2, cluster.address, WORKER) as executor:
        job = train_job("tells")
        kinds, end = ended(executor, job)
        assert kinds == [Running, Progress, Evaluated]
        assert end == ended(executor, job)[1] == JobExit(trial_id(job.trial), "finished")
        assert ended(executor, speed_job("full", "nce"))[1].how == "finished"
        assert len(read_store(tmp_path).records) == 3

        crashed = ended(executor, train_job("crashes"))[1].failure
        assert crashed is not None
        assert (crashed.cause, crashed.log) == ("crash", "last words")

        lost = ended(executor, train_job("kills who started it"))[1].failure
        assert lost is not None
        assert (lost.cause, lost.reason) == ("lost", "its Ray worker was killed, 4 times")
        assert "it is sent again (3 of 3)" in caplog.text

        lock = claim(train_job("nce"), tmp_path)
        assert not isinstance(lock, str)
        assert ended(executor, train_job("nce"))[1].how == "locked"
        lock.close()

        large = msgspec.structs.replace(train_job("full").trial, threads=64)
        with pytest.raises(SoftmaxBenchError, match=r"no node .* has the 64 CPUs .*; 2 CPUs"):
            executor.submit(msgspec.structs.replace(train_job("full"), trial=large))

        executor.submit(train_job("hangs"))
        while not executor.wait(0.2):
            pass
        hanging = workers_of(psutil.Process())
        (folder,) = (Path(each.cmdline()[-1]) for each in hanging)
        assert folder.exists()
        until = time.monotonic() + 60
    assert time.monotonic() < until  # not when the job has ended by itself
    assert not folder.exists()
    wait_for_none(hanging)
    assert list(tmp_path.glob("jobs/*.lock")) != []  # as after any kill: free, and not in the way
    assert not isinstance(claim(train_job("hangs"), tmp_path), str)


def test_nothing_runs_on_when_the_study_is_killed(tmp_path: Path) -> None:
    with killed_study(tmp_path, "RayExecutor", "on_ray", "worker=WORKER", "hangs") as study:
        workers = workers_of(psutil.Process(study.pid))
    assert workers
    wait_for_none(workers)
    assert not isinstance(claim(train_job("hangs"), tmp_path), str)


def workers_of(study: psutil.Process) -> list[psutil.Process]:
    """Processes of jobs that descend from a study."""
    family = study.children(recursive=True)
    return [each for each in family if {WORKER, process.WORKER} & set(each.cmdline())]


def wait_for_none(processes: list[psutil.Process]) -> None:
    until = time.monotonic() + 60
    while any(each.is_running() and each.status() != "zombie" for each in processes):
        assert time.monotonic() < until
        time.sleep(0.1)
