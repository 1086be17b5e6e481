"""Conditions on a comparison under which a job in CI fails: ``time > 1.1``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from softmax_bench.errors import SoftmaxBenchError

METRICS = ("time", "memory", "perplexity")
_CONDITION = re.compile(r"\s*(?P<metric>[^\s<>=]+)\s*(?P<sign>[<>])\s*(?P<bound>[^\s<>=]+)\s*")


@dataclass(frozen=True)
class Condition:
    """A bound on a ratio A / B.

    It is met where the ratio is beyond the bound for sure: where all of its 95 % interval is. A
    ratio without an interval (memory is counted, not sampled) is beyond it or not. Times of which
    one was disturbed are not judged: a busy machine moves the whole interval.
    """

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:g}"

    def check(self, table: pd.DataFrame) -> Outcome:
        """Look at every cell of a comparison's table.

        Raises:
            SoftmaxBenchError: The metric is known in no cell: a job must not pass for that.
        """
        met, unsure, not_judged = [], [], []
        known = table.dropna(subset=f"{self.metric}_ratio")
        if known.empty:
            raise SoftmaxBenchError(
                f"cannot check {str(self)!r}: {self.metric} is not known on both sides of any cell"
            )
        for row in known.to_dict("records"):
            ratio = row[f"{self.metric}_ratio"]
            low, high = (row.get(f"{self.metric}_{side}", np.nan) for side in ("low", "high"))
            near, far = (high, low) if self.sign == ">" else (low, high)
            cell = f"{row['layer']} at V = {row['vocab_size']:,}: {ratio:.3g}"
            if np.isnan(low):
                near = far = ratio
            else:
                cell += f" ({low:.3g}-{high:.3g})"
            disturbed = row.get(f"{self.metric}_disturbed", "")
            if disturbed:
                not_judged.append(f"{cell}, not judged: disturbed ({disturbed})")
            elif self._beyond(far):
                met.append(cell)
            elif self._beyond(near):
                unsure.append(cell)
        return Outcome(self, len(known), tuple(met), tuple(unsure), tuple(not_judged))

    def _beyond(self, ratio: float) -> bool:
        return ratio > self.bound if self.sign == ">" else ratio < self.bound


@dataclass(frozen=True)
class Outcome:
    """What came of a condition."""

    condition: Condition
    cells: int
    """In which the metric is known."""
    met: tuple[str, ...]
    """Cells that are beyond the bound, in words."""
    unsure: tuple[str, ...]
    """Cells whose interval has the bound inside: too noisy to say."""
    not_judged: tuple[str, ...]
    """Cells of which a side was disturbed when it was measured, and by what."""

    def __str__(self) -> str:
        """A paragraph, with a line a cell that is beyond the bound, may be, or is not judged."""
        head = f"{self.condition}: met in {len(self.met)} of {self.cells} cells"
        lines = [f"  {cell}" for cell in self.met]
        lines += [f"  {cell}, too noisy to say" for cell in self.unsure]
        if self.not_judged:
            head += f", {len(self.not_judged)} not judged"
            lines += [f"  {cell}" for cell in self.not_judged]
            lines.append("  Time again, on a quiet machine, what was disturbed.")
        return "\n".join([head, *lines])


def read_conditions(texts: Sequence[str]) -> list[Condition]:
    """Conditions as people write them.

    Args:
        texts: Each ``METRIC > NUMBER`` or ``METRIC < NUMBER``.

    Raises:
        SoftmaxBenchError: One is written otherwise, or can never be met.
    """
    return [_read(text) for text in texts]


def _read(text: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise SoftmaxBenchError(
            f"cannot read condition {text!r}: write METRIC > NUMBER or METRIC < NUMBER, "
            "such as 'time > 1.1'"
        )
    metric, bound = match["metric"], match["bound"]
    if metric not in METRICS:
        raise SoftmaxBenchError(
            f"unknown metric {metric!r} in condition {text!r}: choose {', '.join(METRICS)}"
        )
    try:
        number = float(bound)
    except ValueError:
        number = np.nan
    if not 0 < number < np.inf:
        raise SoftmaxBenchError(
            f"the bound in condition {text!r} must be a positive number, as it is on a ratio "
            f"A / B: 1.1 for ten per cent more, not {bound!r}"
        )
    return Condition(metric, match["sign"], number)
