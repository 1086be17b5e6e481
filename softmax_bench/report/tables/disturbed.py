"""Why times are unreliable: the machine was disturbed, or they are imprecise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from softmax_bench.records.result import Disturbance

ROUGH = 0.05
"""Relative half-width of a step time's interval beyond which a reader is warned."""
MARK = "*"
"""Suffix of an unreliable number."""
DOUBTS = ("step_doubt", "full_doubt", "train_doubt")
"""Columns of the summary table with reasons for doubt, empty if there are none."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_OF_STEPS = ("speedup", "gflops", "gbytes", "of_possible")

_COLUMNS = {name: f"disturbance_{name}" for name in Disturbance.__struct_fields__}


def disturbances(rows: pd.DataFrame) -> list[str]:
    """How the machine was disturbed during any of the measurements.

    Empty if they were undisturbed, or if that is unknown, as for older records.
    """
    if not set(_COLUMNS.values()) <= set(rows.columns):
        return []
    watched = rows.dropna(subset=list(_COLUMNS.values()))
    if watched.empty:
        return []
    return Disturbance(**{name: watched[column].max() for name, column in _COLUMNS.items()}).reasons


def disturbed_sizes(frame: pd.DataFrame) -> dict[int, list[str]]:
    """The vocabulary sizes at which anything was disturbed, and how."""
    if frame.empty:
        return {}
    by_size = {int(size): disturbances(rows) for size, rows in frame.groupby("vocab_size")}
    return {size: reasons for size, reasons in by_size.items() if reasons}


def disturbance_text(rows: pd.DataFrame) -> str:
    """The same as a clause to follow "while"; empty if nothing was disturbed."""
    return " and ".join(disturbances(rows))


def rough(steps: pd.DataFrame) -> pd.Series[float]:
    """Relative half-widths of the step times' intervals that exceed :data:`ROUGH`."""
    half = (steps["high"] - steps["low"]) / 2 / steps["seconds"]
    return half[half > ROUGH]


def step_doubt(row: pd.Series[Any]) -> str:
    """Why a step time is unreliable; empty if it is reliable."""
    alone = row.to_frame().T
    reasons = disturbance_text(alone)
    if reasons:
        return f"timed while {reasons}"
    return "".join(f"known only to {half:.0%}" for half in rough(alone))


def cell_doubt(column: str, row: Mapping[str, Any]) -> str:
    """Why a cell of the summary table is unreliable; empty if it is reliable."""
    if column in _OF_STEPS or column.endswith("_ms"):
        doubt = row.get("step_doubt", "")
        if column == "speedup" and not doubt and row.get("full_doubt"):
            doubt = f"full softmax {row['full_doubt']}"
        if column == "of_possible" and row[column] > 1:
            doubt = doubt or (
                "more than possible, as the machine was busier when its rates were measured"
            )
    elif column == "train_seconds" and row.get("train_doubt"):
        doubt = f"trained while {row['train_doubt']}"
    else:
        doubt = ""
    return doubt if pd.notna(row[column]) else ""


def mark_notes(table: pd.DataFrame) -> list[str]:
    """The meaning of a table's marks, in at most one sentence."""
    doubts = {
        doubt: None
        for row in table.to_dict("records")
        for column in ("step_ms", "of_possible", "train_seconds")
        if column in row and (doubt := cell_doubt(column, row))
    }
    return [f"{MARK} unreliable: {'; '.join(_in_ranges(doubts))}"] if doubts else []


def _in_ranges(doubts: Iterable[str]) -> list[str]:
    """Each kind of doubt once, with the range of its numbers."""
    numbers: dict[str, list[list[str]]] = {}
    for doubt in doubts:
        numbers.setdefault(_NUMBER.sub("{}", doubt), []).append(_NUMBER.findall(doubt))
    ranges = {kind: zip(*rows, strict=True) for kind, rows in numbers.items()}
    return [kind.format(*map(_range, columns)) for kind, columns in ranges.items()]


def _range(numbers: Sequence[str]) -> str:
    in_order = sorted(numbers, key=lambda number: float(number.replace(",", "")))
    low, high = in_order[0], in_order[-1]
    return low if low == high else f"{low} to {high}"


def disturbed_note(speed: pd.DataFrame) -> list[str]:
    """A caption's sentence on the sizes at which times are unreliable."""
    sizes = ", ".join(f"{size:,}" for size in disturbed_sizes(speed))
    return [f"Times at V = {sizes} were disturbed and are unreliable."] if sizes else []
