"""Conditions on a comparison under which a CI job fails, such as ``time > 1.1``."""

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

    It is met if the whole 95 % interval of the ratio is beyond the bound. A ratio without an
    interval (memory is counted, not sampled) is compared directly. Disturbed times are not judged,
    because a busy machine shifts the whole interval.
    """

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:g}"

    def check(self, table: pd.DataFrame) -> Outcome:
        """Check every cell of a comparison's table.

        Raises:
            SoftmaxBenchError: No cell has this metric, for which a job must not pass.
        """
        met, unsure, not_judged = [], [], []
        rows = table.dropna(subset=f"{self.metric}_ratio")
        if rows.empty:
            raise SoftmaxBenchError(
                f"cannot check {str(self)!r}: {self.metric} is not known on both sides of any cell"
            )
        for row in rows.to_dict("records"):
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
        return Outcome(self, len(rows), tuple(met), tuple(unsure), tuple(not_judged))

    def _beyond(self, ratio: float) -> bool:
        return ratio > self.bound if self.sign == ">" else ratio < self.bound


@dataclass(frozen=True)
class Outcome:
    """The outcome of a condition."""

    condition: Condition
    cells: int
    """Number of cells with this metric."""
    met: tuple[str, ...]
    """Descriptions of the cells beyond the bound."""
    unsure: tuple[str, ...]
    """Cells whose interval contains the bound, so that noise leaves it undecided."""
    not_judged: tuple[str, ...]
    """Cells with a disturbed side, and what disturbed it."""

    def __str__(self) -> str:
        """A paragraph, with one line for each cell beyond the bound, undecided or not judged."""
        head = f"{self.condition}: met in {len(self.met)} of {self.cells} cells"
        lines = [f"  {cell}" for cell in self.met]
        lines += [f"  {cell}, too noisy to decide" for cell in self.unsure]
        if self.not_judged:
            head += f", {len(self.not_judged)} not judged"
            lines += [f"  {cell}" for cell in self.not_judged]
            lines.append("  Repeat the disturbed timings on a quiet machine.")
        return "\n".join([head, *lines])


def read_conditions(texts: Sequence[str]) -> list[Condition]:
    """Parse conditions.

    Args:
        texts: Conditions of the form ``METRIC > NUMBER`` or ``METRIC < NUMBER``.

    Raises:
        SoftmaxBenchError: A condition cannot be parsed or can never be met.
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
            f"the bound in condition {text!r} must be a positive number, a ratio A / B such as "
            f"1.1 for ten per cent more, not {bound!r}"
        )
    return Condition(metric, match["sign"], number)
