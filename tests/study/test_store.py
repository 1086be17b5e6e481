from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.study.frames import load_results
from softmax_bench.study.store import read_record, write_record
from softmax_bench.study.trial import SpeedTrial, trial_id

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
    with pytest.raises(OSError, match="No space left"):
        write_record(store, first)
    assert list(store.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"kind": "speed"}', b'{"kind": "x"}'])
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(SoftmaxBenchError, match=r"bad\.json is not a result record"):
        load_results(tmp_path)
