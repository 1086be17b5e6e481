"""Killed at random moments, a study ends with the same records as one that was left alone."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.faults.harness import StudyProcess, resumed, run_to_the_end, timeless, written

pytestmark = pytest.mark.slow

KILLS = 15


class Moment:
    """Any time in the first seconds, or while something is written: at the n-th change there."""

    def __init__(self, draw: random.Random, store: Path) -> None:
        self._store = store
        any_time = draw.random() < 0.3
        self._at = time.monotonic() + (draw.uniform(0.0, 6.0) if any_time else 60.0)
        self._changes = None if any_time else draw.randint(1, 8)
        self._written = written(store)

    def wait(self, process: StudyProcess) -> bool:
        """Wait for it; whether it came before the study ended."""
        while not process.ended():
            if self._has_come():
                return True
            time.sleep(0.002)
        return False

    def _has_come(self) -> bool:
        if self._changes is not None:
            now = written(self._store)
            self._changes -= now != self._written
            self._written = now
            if self._changes <= 0:
                return True
        return time.monotonic() >= self._at


def kill(process: StudyProcess, whom: str, draw: random.Random) -> str:
    """Kill the study, one of its trials, or all at once as when a machine goes down."""
    workers = process.workers()
    if whom == "trial" and not workers:
        whom = "study"
    victims = {
        "study": [psutil.Process(process.process.pid)],
        "trial": workers and [draw.choice(workers)],
        "all": [psutil.Process(process.process.pid), *workers],
    }[whom]
    for victim in victims:
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    if whom != "trial":
        process.wait()
    return whom


def results(store: Path) -> dict[str, bytes]:
    paths = [path for path in store.glob("*.json") if not path.name.endswith(".failed.json")]
    return {path.name: path.read_bytes() for path in paths}


def kill_often(
    study: Path, store: Path, killed: Counter[str], draw: random.Random
) -> tuple[int, int, int]:
    """Run a study until it is done or there were enough kills.

    Returns:
        How often it was started, and how many records were lost and written twice.
    """
    known: dict[str, bytes] = {}
    starts = lost = rewritten = 0
    process = None
    try:
        while killed.total() < KILLS:
            if process is None:
                process = StudyProcess(study, store)
                starts += 1
            if Moment(draw, store).wait(process):
                killed[kill(process, draw.choice(["study", "trial", "all"]), draw)] += 1
            elif process.wait() == 0:
                break
            found = results(store)
            lost += len(known.keys() - found.keys())
            rewritten += sum(found.get(name, content) != content for name, content in known.items())
            known = found
            if process.ended():
                process = None
    finally:
        if process is not None:
            process.process.kill()
            process.wait()
    starts += run_to_the_end(study, store, most=2)
    rewritten += sum(results(store)[name] != content for name, content in known.items())
    return starts, lost, rewritten


def test_a_study_killed_at_random_moments(
    study: Path, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(20)
    expected = timeless(uninterrupted)
    killed: Counter[str] = Counter()
    starts = lost = rewritten = resumes = studies = 0
    while killed.total() < KILLS:
        store = tmp_path / f"store-{studies}"
        store.mkdir()
        counts = kill_often(study, store, killed, draw)
        starts, lost, rewritten = starts + counts[0], lost + counts[1], rewritten + counts[2]
        assert timeless(store) == expected
        assert list((store / "checkpoints").iterdir()) == []
        resumes += resumed(store)
        studies += 1
    with capsys.disabled():
        print(
            f"\n{killed.total()} kills ({', '.join(f'{n} {whom}' for whom, n in killed.items())}) "
            f"over {studies} studies of {len(expected)} trials and {starts} starts: trials went on "
            f"from a checkpoint {resumes} times; records lost: {lost}, written twice: {rewritten}, "
            "unlike those of the uninterrupted study: 0"
        )
    assert lost == rewritten == 0
    assert resumes > 0
