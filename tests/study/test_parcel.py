"""A job far from its store: what comes back, and that nothing else is taken."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from softmax_bench.records.store import checkpoint_path, read_store
from softmax_bench.records.trial import trial_id
from softmax_bench.study.executors.parcel import Checkpoint, Parcel, pack, unpack, work
from softmax_bench.study.jobs.job import Evaluated, Job, JobExit, NgramJob, Progress, Running
from softmax_bench.study.jobs.job import Text as TextSource
from softmax_bench.study.jobs.resources import Resources, resources_of, with_absolute_paths
from tests.records import ngram_record, train_record
from tests.study.jobs import WORKER, speed_job, train_job


def carry(job: Job, store: Path, worker: str = WORKER) -> list[object]:
    return [unpack(message, job, store) for message in work(pack(job, store, worker))]


def test_events_and_records_come_back(tmp_path: Path) -> None:
    job = train_job("tells")
    reports = carry(job, tmp_path)
    assert [type(event) for event in reports] == [Running, Progress, Evaluated, JobExit]
    assert reports[-1] == JobExit(trial_id(job.trial), "finished")
    assert set(read_store(tmp_path).records) == {trial_id(job.trial)}
    together = speed_job("full", "nce")
    carry(together, tmp_path)
    assert set(map(trial_id, together.trials)) < set(read_store(tmp_path).records)


def test_why_it_failed_and_its_log_come_back(tmp_path: Path) -> None:
    job = train_job("crashes")
    ended = carry(job, tmp_path)[-1]
    assert isinstance(ended, JobExit)
    assert ended.failure is not None
    assert (ended.how, ended.failure.cause, ended.failure.log) == ("failed", "crash", "last words")
    log = tmp_path / "jobs" / f"{trial_id(job.trial)}.log"
    assert log.read_text() == "last words\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_checkpoint_goes_there_and_comes_back(tmp_path: Path) -> None:
    job = train_job("goes on")
    path = checkpoint_path(tmp_path, trial_id(job.trial))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"first")
    with closing(work(pack(job, tmp_path, WORKER))) as messages:
        for message in messages:
            unpack(message, job, tmp_path)
            if path.read_bytes() == b"first, second":
                break
    assert path.read_bytes() == b"first, second"
    assert carry(job, tmp_path)[-1] == JobExit(trial_id(job.trial), "finished")
    assert not path.exists()


def test_records_of_other_trials_are_not_taken(tmp_path: Path) -> None:
    job, other = train_job("full"), train_record("nce", 1000, 1.0)
    parcel = Parcel(ended=JobExit(trial_id(job.trial), "finished"), records=[other], log=b"")
    unpack(msgspec.msgpack.encode(parcel), job, tmp_path)
    unpack(msgspec.msgpack.encode(Checkpoint(content=b"x")), speed_job("full"), tmp_path)
    assert read_store(tmp_path).records == {}
    assert not (tmp_path / "checkpoints").exists()


def test_what_a_job_needs() -> None:
    job = train_job("full", bytes=10)
    on_gpu = msgspec.structs.replace(job.trial, device="cuda", threads=3)
    gpu_job = msgspec.structs.replace(job, trial=on_gpu)
    assert resources_of(gpu_job) == Resources(threads=3, gpus=1, bytes=10, whole_node=False)
    assert resources_of(speed_job("full")).whole_node
    counting = NgramJob(trial=ngram_record(50, 1.0).trial, text=job.text)
    assert resources_of(counting) == Resources(threads=1, gpus=0, bytes=None, whole_node=False)


def test_files_are_known_by_their_whole_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolved(spec: str, data_dir: str | None = None) -> TextSource:
        text = TextSource(spec=spec, vocab_size=None, seed=0, data_dir=data_dir)
        job = with_absolute_paths(msgspec.structs.replace(train_job("full"), text=text))
        assert job.text is not None
        return job.text

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOFTMAX_BENCH_DATA", raising=False)
    Path("text.txt").write_text("a b")
    Path("synthetic").mkdir()
    assert resolved("text.txt").spec == str(tmp_path / "text.txt")
    assert resolved("synthetic").spec == "synthetic"
    assert resolved("ptb") == TextSource(spec="ptb", vocab_size=None, seed=0)
    assert resolved("ptb", "data").data_dir == str(tmp_path / "data")
    monkeypatch.setenv("SOFTMAX_BENCH_DATA", "locked")
    assert resolved("ptb").data_dir == str(tmp_path / "locked")
