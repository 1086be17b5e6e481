"""Given hidden states: mapped, checked, split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softmax_bench.corpora.states import load_states


def saved(path: Path, hidden: Any, targets: Any) -> tuple[Path, Path]:
    np.save(path / "h.npy", hidden)
    np.save(path / "t.npy", targets)
    return path / "h.npy", path / "t.npy"


def test_examples_are_split_once_and_counted(tmp_path: Path) -> None:
    targets = np.arange(100) % 7
    states = load_states(*saved(tmp_path, np.ones((100, 3), np.float16), targets))
    assert states.vocab_size == 7
    assert states.name == "h.npy,t.npy"
    assert isinstance(states.hidden, np.memmap)
    splits = [states.split(split) for split in ("train", "valid", "test")]
    assert [len(split) for split in splits] == [80, 10, 10]
    assert sorted(np.concatenate(splits)) == list(range(100))
    assert (states.split("test") == splits[2]).all()
    wanted = np.bincount(targets[splits[0]], minlength=7)
    assert (states.class_counts == wanted).all()
    wider = load_states(tmp_path / "h.npy", tmp_path / "t.npy", 9)
    assert len(wider.class_counts) == 9
    assert wider.sha256 != states.sha256


def test_other_numbers_are_other_examples(tmp_path: Path) -> None:
    hidden, targets = np.ones((20, 2)), np.zeros(20, int)
    first = load_states(*saved(tmp_path, hidden, targets)).sha256
    assert load_states(*saved(tmp_path, hidden, targets)).sha256 == first
    hidden[7, 1] = 2
    assert load_states(*saved(tmp_path, hidden, targets)).sha256 != first
    targets[3] = 1
    hidden[7, 1] = 1
    assert load_states(*saved(tmp_path, hidden, targets), 2).sha256 != first


GOOD = np.ones((20, 2)), np.zeros(20, int)


@pytest.mark.parametrize(
    ("hidden", "targets", "message"),
    [
        (np.ones(20), GOOD[1], r"shape \(M, H\), not float64 of shape \(20,\)"),
        (np.ones((20, 2), int), GOOD[1], "must contain floating-point hidden states"),
        (np.ones((20, 0)), GOOD[1], "floating-point hidden states of shape"),
        (GOOD[0], np.zeros(20), "whole numbers.*not float64"),
        (GOOD[0], np.zeros((20, 1), int), r"not int64 of shape \(20, 1\)"),
        (GOOD[0], np.zeros(19, int), "20 hidden states, but .*t.npy 19 targets"),
        (GOOD[0][:5], GOOD[1][:5], "5 examples cannot be split"),
        (GOOD[0], GOOD[1] - 1, "holds class -1: ids start at 0"),
        (GOOD[0], GOOD[1] + 4, "holds class 4: ids go from 0 to 3"),
        (np.where(np.arange(20)[:, None] == 11, np.nan, GOOD[0]), GOOD[1], "first in row 11"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, hidden: Any, targets: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_states(*saved(tmp_path, hidden, targets), 4)


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    hidden, targets = saved(tmp_path, *GOOD)
    with pytest.raises(ValueError, match=r"cannot read .*none\.npy: No such file"):
        load_states(hidden, tmp_path / "none.npy")
    targets.write_text("1 2 3")
    with pytest.raises(ValueError, match="is not an array"):
        load_states(hidden, targets)
    np.save(targets, np.array([{}] * 20), allow_pickle=True)
    with pytest.raises(ValueError, match="is not an array"):
        load_states(hidden, targets)
