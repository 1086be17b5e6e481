"""Studies that run on one store at once share the work."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from softmax_bench.records.store import read_store
from tests.faults.counting_worker import RAN
from tests.faults.harness import StudyProcess, timeless
from tests.faults.many_trials import TRIALS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("order", ["the same", "another"])
def test_no_trial_is_run_twice(
    tmp_path: Path, order: str, capsys: pytest.CaptureFixture[str]
) -> None:
    studies = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.many_trials", str(tmp_path), str(seed)]
        )
        for seed in ((0, 0, 0) if order == "the same" else (0, 1, 2))
    ]
    assert [study.wait(timeout=250) for study in studies] == [0, 0, 0]
    contents = read_store(tmp_path)
    ran = Counter((tmp_path / RAN).read_text().split())
    twice = sum(count - 1 for count in ran.values())
    with capsys.disabled():
        print(f"\nthree studies at once, {order} order: {len(ran)} trials run, twice: {twice}")
    assert len(contents.records) == len(ran) == TRIALS
    assert not contents.failures
    assert not contents.damaged
    assert twice == 0


def test_two_real_studies_at_once(study: Path, uninterrupted: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    studies = [StudyProcess(study, store) for _ in range(2)]
    assert [process.wait() for process in studies] == [0, 0]
    assert timeless(store) == timeless(uninterrupted)
