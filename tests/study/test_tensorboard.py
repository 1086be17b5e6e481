"""Learning curves as TensorBoard reads them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.study.jobs.job import Evaluated, Progress, job_id
from softmax_bench.study.plan.plan import State, Step
from softmax_bench.study.run.tensorboard import TensorBoard
from tests.study.jobs import train_job


def test_curves_are_written_as_they_come(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    step = Step("full V=1,000", train_job("full"), State.DUE)
    board = TensorBoard(tmp_path)
    board.started(step)
    for tokens in (100, 200):
        board.reported(step, Progress(done=tokens, total=200))
        board.reported(
            step, Evaluated(tokens=tokens, train_loss=5.0, valid_perplexity=1e4 / tokens)
        )
    read = EventAccumulator(str(tmp_path / job_id(step.job)))
    read.Reload()
    curve = [(point.step, point.value) for point in read.Scalars("valid perplexity")]
    assert curve == [(100, 100.0), (200, 50.0)]
    assert len(read.Scalars("train loss")) == 2


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SoftmaxBenchError, match=r"pip install 'softmax-bench\[tensorboard\]'"):
        TensorBoard(tmp_path)
