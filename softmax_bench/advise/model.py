"""Time and memory of a step, as a sum of terms fitted to measured steps.

The roofline of products and bytes alone is far off for steps of a few milliseconds: half of their
time goes into small operations, the work on each score, and the rows whose gradient is written,
clipped and passed to the optimiser. Each of these is a separate term here. Every layer has its own
coefficients, none below zero, so that predicted times never fall as work grows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import nnls

from softmax_bench.advise.calibration import LEAST_SIZES, Cell
from softmax_bench.advise.workload import Workload
from softmax_bench.ops.all_classes import PLAIN_SCORES
from softmax_bench.ops.cpu.softmax_loss import token_blocks

Floats = npt.NDArray[np.float64]
Terms = Mapping[str, Callable[[Workload], float]]


def _scores(work: Workload) -> float:
    """Pairs of a hidden state and a row, each with three products of 2 H operations."""
    return work.flops / (6.0 * work.hidden_size)


def _scores_held(work: Workload) -> float:
    """Scores of the largest block of tokens; others are computed after these are used."""
    classes = _scores(work) / work.num_tokens
    blocks = token_blocks(work.num_tokens, round(classes))
    return classes * max(block.stop - block.start for block in blocks)


TIME_TERMS: Terms = {
    "step": lambda work: 1.0,
    "token": lambda work: work.num_tokens,
    "operation": lambda work: work.flops,
    "byte moved": lambda work: work.bytes,
    "score": _scores,
    "byte of gradient": lambda work: work.gradient_bytes,
}
PEAK_TERMS: Terms = {
    "step": lambda work: 1.0,
    "token": lambda work: work.num_tokens,
    "number of a hidden state": lambda work: work.num_tokens * work.hidden_size,
    "score held": _scores_held,
    "score held by torch": lambda work: _scores(work) * (_scores(work) <= PLAIN_SCORES),
    "byte of the parameters": lambda work: work.parameter_bytes,
    "row": lambda work: work.rows_touched,
    "number of a row": lambda work: work.rows_touched * work.hidden_size,
    "byte of gradient": lambda work: work.gradient_bytes,
    "class": lambda work: work.vocab_size,
}

COVERED = 0.8
"""Share of the held-out sizes inside the intervals. Nine in ten other sizes are, because most
held-out ones are corners of the grid, about which the rest of it says least
(``python -m benchmarks.advise``).
"""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A layer's step at one size, predicted or measured."""

    seconds: float
    low: float
    high: float
    """Bounds on the seconds on a quiet machine: for a prediction, the error that :data:`COVERED` of
    the held-out sizes stay below, with an allowance for distance; for a measurement, the interval
    of the median.
    """
    peak_bytes: int
    """Peak bytes beyond the parameters, including gradients."""
    outside: str
    """How the size differs from all that were measured, in words; empty if it does not."""


class CostModel:
    """A cost model fitted to the measured steps of some layers.

    Args:
        cells: Measured steps; layers measured at fewer than :data:`LEAST_SIZES` sizes are left
            out.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        by_layer: dict[str, list[Cell]] = {}
        for cell in cells:
            by_layer.setdefault(cell.workload.layer, []).append(cell)
        self._cells = {
            layer: own
            for layer, own in by_layer.items()
            if len({cell.workload.size for cell in own}) >= LEAST_SIZES
        }
        self._fits = {layer: _Fit(own) for layer, own in self._cells.items()}
        self.held_out = _held_out(self._cells)
        """One row per measured step: ``layer``, ``vocab_size``, ``hidden_size``, ``num_tokens``,
        ``measured`` and ``predicted`` seconds and peak bytes, by a model that saw no step of any
        layer at that size.
        """

    @property
    def layers(self) -> list[str]:
        """The layers that can be predicted."""
        return sorted(self._fits)

    @property
    def median_error(self) -> float:
        """Median relative error of the time at held-out sizes."""
        return float(relative_errors(self.held_out).median())

    def predict(self, work: Workload) -> Prediction:
        """Time and memory of a step of one of :attr:`layers`."""
        fit = self._fits[work.layer]
        seconds = fit.seconds(work)
        errors = self.held_out.loc[self.held_out["layer"] == work.layer]
        spread = np.abs(np.log(errors["predicted"] / errors["measured"])).quantile(COVERED)
        beyond, where = _distance(work, [cell.workload for cell in self._cells[work.layer]])
        factor = math.exp(spread * (1 + beyond / 2))
        return Prediction(
            seconds=seconds,
            low=seconds / factor,
            high=seconds * factor,
            peak_bytes=int(fit.peak(work)),
            outside=where if beyond > 2 else "",
        )


def relative_errors(frame: pd.DataFrame) -> pd.Series[float]:
    """Absolute relative errors of the predicted seconds."""
    return (frame["predicted"] / frame["measured"] - 1).abs()


class _Fit:
    """Functions of a workload, fitted to the steps of one layer."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        loads = [cell.workload for cell in cells]
        self.seconds = _fit(TIME_TERMS, loads, [cell.seconds for cell in cells])
        self._loads, self._peaks = loads, [cell.peak_bytes for cell in cells]

    def peak(self, work: Workload) -> float:
        return predict_peak(self._loads, self._peaks, work)


def _matrix(terms: Terms, loads: Sequence[Workload]) -> Floats:
    return np.array([[term(work) for term in terms.values()] for work in loads])


def predict_peak(loads: Sequence[Workload], peaks: Sequence[float], work: Workload) -> float:
    """Peak bytes of a step, predicted from measured steps of the same layer.

    Closer sizes count more, because memory is held in different ways at different sizes: block by
    block, or all at once.
    """
    sizes = np.log2([load.size for load in loads])
    distance = np.linalg.norm(sizes - np.log2(work.size), axis=1)
    return _fit(PEAK_TERMS, loads, peaks, 1 / (1 + distance))(work)


def _fit(
    terms: Terms,
    loads: Sequence[Workload],
    measured: Sequence[float],
    weights: Floats | float = 1.0,
) -> Callable[[Workload], float]:
    """The sum of non-negative terms with the least squared relative errors."""
    weights = np.broadcast_to(weights, len(loads))
    relative = _matrix(terms, loads) * (weights / measured)[:, None]
    scale = np.maximum(relative.max(axis=0), np.finfo(float).tiny)
    coefficients, _ = nnls(relative / scale, weights)
    return lambda work: float(_matrix(terms, [work])[0] @ (coefficients / scale))


def _held_out(cells: Mapping[str, Sequence[Cell]]) -> pd.DataFrame:
    rows = []
    for layer, own in cells.items():
        for size in {cell.workload.size for cell in own}:
            fit = _Fit([cell for cell in own if cell.workload.size != size])
            rows += [
                {
                    "layer": layer,
                    "vocab_size": size[0],
                    "hidden_size": size[1],
                    "num_tokens": size[2],
                    "measured": cell.seconds,
                    "predicted": fit.seconds(cell.workload),
                    "measured_peak": cell.peak_bytes,
                    "predicted_peak": fit.peak(cell.workload),
                }
                for cell in own
                if cell.workload.size == size
            ]
    columns = ["layer", "vocab_size", "hidden_size", "num_tokens"]
    return pd.DataFrame(rows).sort_values(columns, ignore_index=True) if rows else pd.DataFrame()


_AXES: Terms = {
    "V": lambda work: work.vocab_size,
    "H": lambda work: work.hidden_size,
    "N": lambda work: work.num_tokens,
    "operations": lambda work: work.flops,
}


def _distance(work: Workload, measured: Sequence[Workload]) -> tuple[float, str]:
    """Doublings beyond the measured sizes on the axis where they are most, and that axis."""
    worst, where = 0.0, ""
    for name, axis in _AXES.items():
        value, values = axis(work), [axis(one) for one in measured]
        beyond = math.log2(max(value / max(values), min(values) / value, 1.0))
        if beyond > worst:
            bound = max(values) if value > max(values) else min(values)
            worst, where = beyond, f"{name} = {value:,.3g}, measured up to {bound:,.3g}"
            if value < min(values):
                where = f"{name} = {value:,.3g}, measured from {bound:,.3g}"
    return worst, where
