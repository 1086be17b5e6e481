"""Time and memory of the layers at the given size, predicted or measured now."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from softmax_bench.advise.calibration import Setting, calibrated, measure
from softmax_bench.advise.model import CostModel, Prediction
from softmax_bench.advise.question import Question
from softmax_bench.advise.workload import Workload
from softmax_bench.measure import watch_machine
from softmax_bench.measure.memory import OPTIMIZER_STATES

SLOWEST = 20.0
"""A layer whose step takes longer is not measured further."""

_LOOK_SECONDS = 0.3
_BUSY = 0.25


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Steps of the layers, and how far to trust them."""

    by_layer: dict[str, Prediction]
    trust: str
    """Where the times come from and how reliable they are, in whole sentences."""
    disturbed: str
    """What disturbed the machine while layers were timed; empty if nothing did."""
    measured: bool
    """Whether the layers were timed at the size in question."""


def predicted(
    loads: Sequence[Workload],
    setting: Setting,
    folder: Path,
    *,
    anew: bool,
    on_share: Callable[[float], None],
) -> Steps:
    """Predict by the cost model of this machine, after calibrating it if necessary.

    Raises:
        SoftmaxBenchError: The stored calibration is damaged.
    """
    calibration = calibrated(
        [work.layer for work in loads], setting, folder, anew=anew, on_share=on_share
    )
    model = CostModel(calibration.cells)
    steps = {work.layer: model.predict(work) for work in loads if work.layer in model.layers}
    trust = "Predicted from timed steps at small sizes, for a quiet machine"
    if steps:
        trust += f"; the median error at held-out sizes was {model.median_error:.0%}"
    if calibration.disturbed:
        trust += (
            f". They were timed while {calibration.disturbed}; timing is repeated once it is quiet"
        )
    busy = psutil.cpu_percent(_LOOK_SECONDS) / 100
    if busy > _BUSY:
        trust += f". The processor is {busy:.0%} busy now, so steps take longer at the moment"
    return Steps(by_layer=steps, trust=f"{trust}.", disturbed=calibration.disturbed, measured=False)


def measured(
    loads: Sequence[Workload],
    question: Question,
    setting: Setting,
    *,
    seconds: float,
    on_share: Callable[[float], None],
) -> Steps:
    """Measure steps now, on random hidden states and targets drawn by the counts.

    Layers that do not fit into free memory, or are slower than :data:`SLOWEST`, are left out.
    """
    copies = 2 + OPTIMIZER_STATES[setting.optimizer]  # parameters, dense gradients, states
    free = psutil.virtual_memory().available
    fitting = [work.layer for work in loads if copies * work.parameter_bytes < free]
    done = itertools.count(1)
    with watch_machine() as disturbances:
        cells = measure(
            fitting,
            setting,
            sizes=[loads[0].size],
            counts=question.counts,
            seconds=seconds,
            max_flops=float("inf"),
            max_seconds=SLOWEST,
            on_cell=lambda: on_share(next(done) / len(fitting)),
        )
    steps = {
        cell.workload.layer: Prediction(
            seconds=cell.seconds,
            low=cell.low,
            high=cell.high,
            peak_bytes=cell.peak_bytes,
            outside="",
        )
        for cell in cells
    }
    return Steps(
        by_layer=steps,
        trust="Measured just now.",
        disturbed=" and ".join(disturbances[0].reasons),
        measured=True,
    )
