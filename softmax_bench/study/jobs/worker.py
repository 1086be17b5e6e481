"""The program of a job's process: ``python -m softmax_bench.study.jobs.worker STORE``.

The job arrives as one line of JSON on standard input. Events go to the file named in the
environment; everything else that is printed is the log.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from softmax_bench.records.record import TrainRecord
from softmax_bench.records.store import checkpoint_path, disk_full, write_record
from softmax_bench.records.trial import trial_id
from softmax_bench.study.jobs.job import (
    Evaluated,
    Event,
    Failed,
    FidelityJob,
    Job,
    NgramJob,
    Progress,
    Running,
    SpeedJob,
    TrainJob,
)
from softmax_bench.study.jobs.process import DISK_FULL

_PROGRESS_INTERVAL = 0.2


def main() -> None:
    """Run one job."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    faulthandler.enable()
    if job.limits.seconds is not None:
        # Use a thread that needs no interpreter, so that it ends a process that hangs in foreign
        # code.
        faulthandler.dump_traceback_later(job.limits.seconds, exit=True)
    events = int(os.environ["SOFTMAX_BENCH_EVENTS"])

    def emit(event: Event) -> None:
        os.write(events, msgspec.json.encode(event) + b"\n")

    # Leave at once in any case: whatever happens while Python shuts down is not part of the trial,
    # and must not turn a stored one into a failure.
    try:
        os._exit(_outcome(job, Path(sys.argv[1]), emit))
    except OSError as error:  # there is no room even to report it
        os._exit(DISK_FULL if disk_full(error) else 1)


def _outcome(job: Job, store: Path, emit: Callable[[Event], None]) -> int:
    """Run the job, and return the exit status."""
    try:
        _run(job, store, emit)
        status = 0
    except Exception as error:  # anything that a foreign layer may raise
        if disk_full(error):
            return DISK_FULL
        traceback.print_exc()
        emit(_failed(error))
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _end_with_the_study() -> None:
    """Standard input ends when the parent process does."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _failed(error: Exception) -> Failed:
    from softmax_bench.errors import SoftmaxBenchError
    from softmax_bench.lm import DivergedError

    if isinstance(error, DivergedError):
        return Failed(cause="diverged", reason=str(error))
    if isinstance(error, MemoryError) or "not enough memory" in str(error):
        return Failed(cause="memory", reason=f"out of memory: {error}")
    if isinstance(error, SoftmaxBenchError):
        return Failed(cause="error", reason=str(error))
    return Failed(cause="error", reason=f"{type(error).__name__}: {error}")


def _run(job: Job, store: Path, emit: Callable[[Event], None]) -> None:
    import torch

    # Processors calculate up to a hundred times more slowly with subnormal numbers, and a diverging
    # training is full of them.
    torch.set_flush_denormal(True)
    if isinstance(job, TrainJob):
        _train(job, store, emit)
    elif isinstance(job, NgramJob):
        _count(job, store)
    elif isinstance(job, SpeedJob):
        _time(job, store, emit)
    else:
        _compare(job, store, emit)


def _train(job: TrainJob, store: Path, emit: Callable[[Event], None]) -> None:
    from softmax_bench.lm import DivergedError
    from softmax_bench.lm import Progress as Point
    from softmax_bench.study.texts import load_given, load_text
    from softmax_bench.study.trials.hidden_states import train_on_states
    from softmax_bench.study.trials.train import make_checkpoint, train_trial

    trial = job.trial
    tokens, emitted = 0, 0.0

    def on_step(predicted: int) -> None:
        nonlocal tokens, emitted
        tokens += predicted
        if time.monotonic() - emitted >= _PROGRESS_INTERVAL:
            emitted = time.monotonic()
            emit(Progress(done=tokens, total=trial.max_tokens))

    def on_evaluation(point: Point) -> None:
        emit(
            Evaluated(
                tokens=point.tokens,
                train_loss=point.train_loss,
                valid_perplexity=point.valid.perplexity,
            )
        )

    path = checkpoint_path(store, trial_id(trial))
    train: Callable[..., TrainRecord] = (
        partial(train_trial, trial, load_text(job.text, trial.corpus_sha256))
        if job.text.targets is None
        else partial(train_on_states, trial, load_given(job.text, trial.corpus_sha256))
    )
    try:
        record = train(
            on_step=on_step,
            on_evaluation=on_evaluation,
            checkpoint=make_checkpoint(trial, path, job.checkpoint_seconds),
        )
        write_record(store, record)
    except DivergedError:  # resumed, it would diverge again
        path.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)


def _count(job: NgramJob, store: Path) -> None:
    from softmax_bench.study.texts import load_text
    from softmax_bench.study.trials.ngram import ngram_trial

    write_record(store, ngram_trial(job.trial, load_text(job.text, job.trial.corpus_sha256)))


def _time(job: SpeedJob, store: Path, emit: Callable[[Event], None]) -> None:
    from softmax_bench.study.texts import load_given
    from softmax_bench.study.trials.speed import speed_trials

    sha256 = job.trials[0].corpus_sha256
    states = None if job.text is None or sha256 is None else load_given(job.text, sha256)
    records = speed_trials(
        job.trials,
        class_counts=None if states is None else states.class_counts,
        budget_seconds=job.budget_seconds,
        on_round=lambda share: emit(Progress(done=share, total=1.0)),
        on_turn=lambda trial: emit(Running(trial=trial_id(trial))),
    )
    emit(Running(trial=None))
    for record in records:
        write_record(store, record)


def _compare(job: FidelityJob, store: Path, emit: Callable[[Event], None]) -> None:
    from softmax_bench.study.texts import load_text
    from softmax_bench.study.trials.fidelity import measure_fidelity

    records = measure_fidelity(
        job.trials,
        load_text(job.text, job.trials[0].model.corpus_sha256),
        on_progress=lambda what, share: emit(Progress(done=share, total=1.0)),
        on_turn=lambda trial: emit(Running(trial=trial_id(trial))),
    )
    for record in records:
        emit(Running(trial=None))
        write_record(store, record)


if __name__ == "__main__":
    main()
