"""A small study as people run it, in a process of its own that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from softmax_bench.records.store import read_store
from tests.records import learned

AUDITED = Path(__file__).parent / "audited"
"""Folder with the module that watches every process."""

STUDY = """
corpora = ["{text}"]
vocab_sizes = ["all"]
layers = ["midx(refresh=30, codewords=4, num_samples=5)", "nce(log_z='estimated')"]
learning_rates = [0.05, 0.2]
tune_tokens = 6000
max_tokens = [20000]
hidden_size = 6
batch_size = 4
bptt = 4
dropout = 0.1
threads = 1
workers = 2
time_budget = 0
checkpoint_seconds = 0.1
"""


def write_study(folder: Path) -> Path:
    """A study of seven trials, of which each trains for some seconds at most."""
    text = folder / "text"
    text.mkdir()
    lines = [f"w{i % 7} w{i % 5} w{i % 11} x\n" for i in range(300)]
    for split, count in (("train", 300), ("valid", 20), ("test", 20)):
        (text / f"{split}.txt").write_text("".join(lines[:count]))
    study = folder / "study.toml"
    study.write_text(STUDY.format(text=text))
    return study


def audit_of(store: Path) -> Path:
    """Where the processes of a study note what could make code out of data."""
    return store.parent / f"{store.name}.audit"


class StudyProcess:
    """``softmax-bench run`` on a store."""

    def __init__(self, study: Path, store: Path) -> None:
        self._output = store.with_name(f"{store.name}.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "softmax_bench.cli", "run", str(study), "--out", str(store)],
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join([str(AUDITED), *filter(None, sys.path)]),
                "SOFTMAX_BENCH_AUDIT": str(audit_of(store)),
            },
        )

    def workers(self) -> list[psutil.Process]:
        """Processes of the trials that run."""
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []
        return [child for child in children if "softmax_bench.study.jobs.worker" in _command(child)]

    def ended(self) -> bool:
        """Whether it does not run any more."""
        if self.process.poll() is None:
            return False
        self._output.close()
        return True

    def wait(self) -> int:
        """Its exit status, at its end."""
        status = self.process.wait(timeout=600)
        self._output.close()
        return status


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def run_to_the_end(study: Path, store: Path, most: int = 1) -> int:
    """Run, and run again where trials failed, until all is done; how often that took."""
    for times in range(1, most + 1):
        if StudyProcess(study, store).wait() == 0:
            return times
    raise AssertionError(store.with_name(f"{store.name}.log").read_text()[-4000:])


def timeless(store: Path) -> dict[str, Any]:
    """All records of a store by identity, without times and counts of interruptions."""
    contents = read_store(store)
    assert not contents.damaged
    assert not contents.failures
    return {identity: learned(record) for identity, record in contents.records.items()}


def resumed(store: Path) -> int:
    """How often trials went on from a checkpoint."""
    results = [record.result for record in read_store(store).records.values()]
    return sum(getattr(result, "resumed", 0) for result in results)


def written(store: Path) -> dict[str, int]:
    """Records and checkpoints, finished and not, with the times of their last changes."""
    found = {}
    for folder, _, names in os.walk(store):
        for path in (Path(folder, name) for name in names if Path(folder).name != "jobs"):
            with suppress(FileNotFoundError):
                found[str(path)] = path.stat().st_mtime_ns
    return found
