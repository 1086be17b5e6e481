from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.records.frames import load_results
from softmax_bench.records.record import SCHEMA_VERSION, FailureRecord, Stored
from softmax_bench.records.store import (
    DamagedRecordError,
    DiskFullError,
    LaterRecordError,
    check_store,
    make_store,
    read_record,
    read_store,
    set_aside,
    write_record,
)
from softmax_bench.records.trial import SpeedTrial, trial_id
from softmax_bench.study.executors.local import LocalExecutor
from softmax_bench.study.jobs.job import Limits
from softmax_bench.study.plan.plan import plan_timing
from softmax_bench.study.run.session import run
from tests.records import speed_record, train_record

TRIAL = SpeedTrial(
    layer="full", vocab_size=10, hidden_size=2, num_tokens=3, optimizer="sgd", seed=0, threads=1,
    device="cpu", dtype="float32",
)  # fmt: skip


def record() -> dict[str, object]:
    return {
        "kind": "speed", "schema": 1, "id": trial_id(TRIAL), "started": "2026-01-01",
        "trial": msgspec.to_builtins(TRIAL),
        "environment": {
            "processor": "p", "cores": 1, "memory_bytes": 1, "system": "s", "accelerator": None,
            "versions": {}, "blas": "b", "git_commit": None, "variables": {},
        },
        "result": {
            "phases": {"step": {"median": 1.0, "low": 0.5, "high": 2.0, "repetitions": 5}},
            "peak_bytes": 1, "parameters": 2, "rows_touched": 3, "flops": 4.0, "bytes": 5.0,
        },
    }  # fmt: skip


def stored(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "one.json"
    path.write_bytes(msgspec.json.encode(record()))
    return path


def test_round_trip(tmp_path: Path) -> None:
    first = read_record(stored(tmp_path))
    path = write_record(tmp_path / "store", first)
    assert path.name == f"{trial_id(TRIAL)}.json"
    assert read_record(path) == first
    speed = load_results(tmp_path / "store").speed
    assert speed[["layer", "phase", "seconds"]].to_numpy().tolist() == [["full", "step", 1.0]]


def test_identity_is_the_whole_configuration() -> None:
    assert trial_id(TRIAL) == trial_id(msgspec.structs.replace(TRIAL))
    for field in TRIAL.__struct_fields__:
        changed = msgspec.structs.replace(TRIAL, **{field: "x"})
        assert trial_id(changed) != trial_id(TRIAL), field


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_record(stored(tmp_path))
    store = tmp_path / "store"

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DiskFullError, match="no disk space left to write a record"):
        write_record(store, first)
    assert list(store.iterdir()) == []


DAMAGE = [b"", b"{", b"[]", b'{"kind": "speed"}', b'{"kind": "x"}', b"\xff\xfe", b'"\xff"']


@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_record_is_left_out_of_a_report_and_named(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    stored(tmp_path)
    assert len(load_results(tmp_path).speed) == 1
    assert "bad.json is not a result record" in caplog.text
    assert (tmp_path / "bad.json").read_bytes() == content


def test_a_damaged_record_is_set_aside_and_kept(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(b"{")
    damaged = read_store(tmp_path).damaged
    assert list(set_aside(damaged)) == [tmp_path / "bad.json.damaged"]
    assert (tmp_path / "bad.json.damaged").read_bytes() == b"{"
    assert read_store(tmp_path).damaged == {}
    assert list(set_aside(damaged)) == []  # another study was faster


@pytest.mark.parametrize("change", [{}, {"result": "something new"}, {"new": 1}])
def test_a_record_of_a_later_version_is_left_out_of_a_report_and_stops_a_run(
    tmp_path: Path, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """Even one that this version could make sense of: its fields may mean something else."""
    later = record() | {"schema": SCHEMA_VERSION + 1} | change
    (tmp_path / "later.json").write_bytes(msgspec.json.encode(later))
    write_record(tmp_path, speed_record("nce", 10, 1.0))
    assert set(load_results(tmp_path).speed["layer"]) == {"nce"}
    assert caplog.text.count(f"later.json is a record of schema {SCHEMA_VERSION + 1}") == 1
    with pytest.raises(LaterRecordError, match="install the version that wrote it"):
        run(plan_timing([], 1.0, Limits()), tmp_path, LocalExecutor(tmp_path))
    assert (tmp_path / "later.json").exists()


@pytest.mark.parametrize("kept", ["claims/ptb", "fidelity", "speed"])
def test_records_of_older_versions_load_and_keep_their_identity(kept: str) -> None:
    folder = Path(__file__).parents[2] / "results" / kept
    contents = read_store(folder)
    assert contents.damaged == {}
    assert len(contents.records) == len(list(folder.glob("*.json"))) > 0
    for identity, one in contents.records.items():
        assert trial_id(one.trial) == identity


def failure(reason: str = "it was so") -> FailureRecord:
    return FailureRecord(
        id=trial_id(TRIAL), started="2026-01-02", of="speed", seconds=1.0, log="last words",
        configuration=msgspec.to_builtins(TRIAL), cause="crash", reason=reason,
    )  # fmt: skip


def test_a_result_wins_over_a_failure_however_stores_are_merged(tmp_path: Path) -> None:
    good = read_record(stored(tmp_path / "good"))
    write_record(tmp_path / "good", good)
    (tmp_path / "good" / "one.json").unlink()
    write_record(tmp_path / "bad", failure())
    for order in (("good", "bad"), ("bad", "good")):
        merged = tmp_path / "-".join(order)
        for part in order:
            shutil.copytree(tmp_path / part, merged, dirs_exist_ok=True)
        contents = read_store(merged)
        assert contents.records == {good.id: good}
        assert contents.failures == {}


def test_a_result_takes_the_place_of_a_failure(tmp_path: Path) -> None:
    good = read_record(stored(tmp_path / "other"))
    write_record(tmp_path, failure())
    assert list(read_store(tmp_path).failures.values()) == [failure()]
    assert failure().trial == TRIAL
    write_record(tmp_path, good)
    assert [path.name for path in tmp_path.glob("*.json")] == [f"{good.id}.json"]


def test_failures_are_a_frame(tmp_path: Path) -> None:
    write_record(tmp_path, failure())
    with pytest.raises(SoftmaxBenchError, match=r"all of its 1 trials failed.*it was so"):
        load_results(tmp_path)
    write_record(tmp_path, speed_record("nce", 10, 1.0))
    failures = load_results(tmp_path).failures
    assert failures[["title", "layer", "cause", "reason"]].to_numpy().tolist() == [
        ["timing full V=10", "full", "crash", "it was so"]
    ]


def test_a_trial_counts_once_whatever_its_files_are_called(tmp_path: Path) -> None:
    write_record(tmp_path, read_record(stored(tmp_path)))
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert len(load_results(tmp_path).speed) == 1


INFINITE = [
    train_record("full", 10, float("inf")),
    train_record("full", 10, 9.0, rate=float("nan")),
    msgspec.structs.replace(  # null would be taken for "not known"
        (quick := speed_record("full", 10, 1.0)),
        result=msgspec.structs.replace(quick.result, machine_flops=float("inf")),
    ),
    msgspec.structs.replace(  # a plain mapping takes anything
        failure(), configuration=failure().configuration | {"clip_norm": float("inf")}
    ),
]


@pytest.mark.parametrize("poisoned", INFINITE)
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, poisoned: Stored) -> None:
    with pytest.raises(SoftmaxBenchError, match=r"is infinite or not a number"):
        write_record(tmp_path, poisoned)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change", [{"of": "new"}, {"configuration": {"layer": None}}, {"id": "another"}]
)
def test_a_failure_that_names_no_trial_does_not_stop_the_others(
    tmp_path: Path, change: dict[str, object]
) -> None:
    poisoned = msgspec.to_builtins(failure()) | change
    (tmp_path / "bad.failed.json").write_bytes(msgspec.json.encode(poisoned))
    write_record(tmp_path, speed_record("nce", 10, 1.0))
    assert load_results(tmp_path).failures.empty
    assert list(read_store(tmp_path).damaged) == [tmp_path / "bad.failed.json"]


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/results", "x" * 300])
@pytest.mark.parametrize("refuse", [check_store, make_store])
def test_a_folder_that_cannot_be_written_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, refuse: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("kept")
    with pytest.raises(SoftmaxBenchError, match=r"cannot write results into .*--out"):
        refuse(Path(place))
    assert Path("file").read_text() == "kept"


def test_a_link_to_nowhere_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "below")
    with pytest.raises(SoftmaxBenchError, match=r"cannot write results into .*--out"):
        make_store(tmp_path / "link")


def test_a_folder_is_writable_and_left_empty(tmp_path: Path) -> None:
    make_store(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_record_of_another_trial_than_it_says_is_damaged(tmp_path: Path) -> None:
    changed = record()
    changed["trial"] = changed["trial"] | {"seed": 1}  # type: ignore[operator]
    (tmp_path / "one.json").write_bytes(msgspec.json.encode(changed))
    with pytest.raises(DamagedRecordError, match="identity is not that of its trial"):
        read_record(tmp_path / "one.json")
