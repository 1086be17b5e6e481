"""Jobs whose worker does what the name of the layer says: it crashes, hangs, eats memory, prints.

``python -m tests.study.jobs STORE`` is the worker. It is started without torch and so in no time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from softmax_bench.records.store import checkpoint_path, record_path, write_record
from softmax_bench.records.trial import SpeedTrial, TrainTrial, trial_id
from softmax_bench.study.jobs.job import (
    Evaluated,
    Failed,
    Job,
    Limits,
    Progress,
    Running,
    SpeedJob,
    TrainJob,
    trials_of,
)
from softmax_bench.study.jobs.job import Text as TextSource
from softmax_bench.study.jobs.process import DISK_FULL
from tests.records import ENVIRONMENT, disturbed, speed_record, train_record

WORKER = "tests.study.jobs"


def train_job(layer: str, *, rate: float = 0.1, **limits: Any) -> TrainJob:
    """A job to train ``layer``, of :func:`tests.records.train_record`'s configuration."""
    return TrainJob(
        trial=train_record(layer, 1000, 100.0, rate).trial,
        text=TextSource(spec="none", vocab_size=None, seed=0),
        limits=Limits(**limits),
    )


def speed_job(*layers: str) -> SpeedJob:
    """A job to time layers together."""
    trials = tuple(speed_record(layer, 1000, 1.0).trial for layer in layers)
    return SpeedJob(trials=trials, budget_seconds=1.0)


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    store = Path(sys.argv[1])
    for trial in trials_of(job):
        emit(Running(trial=trial_id(trial)))
        assert isinstance(trial, SpeedTrial | TrainTrial)
        if trial.layer == "goes on":
            go_on(store, trial_id(trial))
        behave(trial.layer)
    for trial in trials_of(job):
        if isinstance(trial, SpeedTrial):
            waiting = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "")}
            machine = msgspec.structs.replace(ENVIRONMENT, variables=waiting)
            record = msgspec.structs.replace(
                speed_record(trial.layer, trial.vocab_size, 1.0), environment=machine
            )
            first = not record_path(store, trial_id(trial)).exists()
            if trial.layer == "is disturbed" or (trial.layer == "is disturbed once" and first):
                record = disturbed(record)
            write_record(store, msgspec.structs.replace(record, id=trial_id(trial), trial=trial))
        elif isinstance(trial, TrainTrial):
            perplexity = 100.0 + 50.0 * abs(trial.learning_rate - 0.2)
            trained = train_record(trial.layer, trial.vocab_size, perplexity)
            write_record(store, msgspec.structs.replace(trained, id=trial_id(trial), trial=trial))


def _end_with_the_study() -> None:
    os.read(0, 1)
    os._exit(1)


def emit(event: Any) -> None:
    os.write(int(os.environ["SOFTMAX_BENCH_EVENTS"]), msgspec.json.encode(event) + b"\n")


def go_on(store: Path, identity: str) -> None:
    """Add to the checkpoint; what has gone on once already comes to its end."""
    path = checkpoint_path(store, identity)
    before = path.read_bytes()
    if b"second" in before:
        path.unlink()
        return
    path.write_bytes(before + b", second")
    time.sleep(600)


def behave(layer: str) -> None:
    """Do as the layer is called; train well where that says nothing."""
    if layer == "crashes":
        print("last words", flush=True)
        ctypes.string_at(0)
    elif layer == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif layer == "kills who started it":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    elif layer == "takes a while":
        time.sleep(8)
    elif layer == "hangs":
        time.sleep(600)
    elif layer == "eats memory":
        held = bytearray(b"x") * 150_000_000
        time.sleep(600)
        del held
    elif layer == "diverges":
        emit(Failed(cause="diverged", reason="the loss is nan"))
        sys.exit(1)
    elif layer == "fills the disk":
        sys.exit(DISK_FULL)
    elif layer == "forgets":
        sys.exit(0)
    elif layer == "tells":
        emit("nonsense")
        emit(Progress(done=1, total=2))
        emit(Evaluated(tokens=1, train_loss=2.0, valid_perplexity=3.0))


if __name__ == "__main__":
    main()
