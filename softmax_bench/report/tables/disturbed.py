"""Why times are not to be trusted: the machine was disturbed, or they are known only roughly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from softmax_bench.records.result import Disturbance

ROUGH = 0.05
"""Half an interval of a step time, relative, beyond which a reader is warned."""
MARK = "*"
"""Behind a number that is not to be trusted."""
DOUBTS = ("step_doubt", "full_doubt", "train_doubt")
"""Columns of the summary table that say why, empty where there is no reason to doubt."""
_OF_STEPS = ("speedup", "gflops", "gbytes", "of_possible")

_COLUMNS = {name: f"disturbance_{name}" for name in Disturbance.__struct_fields__}


def disturbances(rows: pd.DataFrame) -> list[str]:
    """What else the machine did during any of some measurements, and too much of it.

    Empty where they were undisturbed, and where that is not known, as of older records.
    """
    if not set(_COLUMNS.values()) <= set(rows.columns):
        return []
    known = rows.dropna(subset=list(_COLUMNS.values()))
    if known.empty:
        return []
    return Disturbance(**{name: known[column].max() for name, column in _COLUMNS.items()}).reasons


def disturbed_sizes(frame: pd.DataFrame) -> dict[int, list[str]]:
    """The vocabulary sizes at which anything was disturbed, and by what."""
    if frame.empty:
        return {}
    found = {int(size): disturbances(rows) for size, rows in frame.groupby("vocab_size")}
    return {size: reasons for size, reasons in found.items() if reasons}


def disturbance_text(rows: pd.DataFrame) -> str:
    """The same as one clause, after "while"; empty where they were undisturbed."""
    return " and ".join(disturbances(rows))


def rough(steps: pd.DataFrame) -> pd.Series[float]:
    """Half the interval of each step time, relative, where it is wider than :data:`ROUGH`."""
    half = (steps["high"] - steps["low"]) / 2 / steps["seconds"]
    return half[half > ROUGH]


def step_doubt(row: pd.Series[Any]) -> str:
    """Why a step time is not to be trusted; empty if it is."""
    alone = row.to_frame().T
    reasons = disturbance_text(alone)
    if reasons:
        return f"timed while {reasons}"
    return "".join(f"known only to {half:.0%}" for half in rough(alone))


def cell_doubt(column: str, row: Mapping[str, Any]) -> str:
    """Why a cell of the summary table is not to be trusted; empty if it is."""
    if column in _OF_STEPS or column.endswith("_ms"):
        doubt = row.get("step_doubt", "")
        if column == "speedup" and not doubt and row.get("full_doubt"):
            doubt = f"full softmax {row['full_doubt']}"
    elif column == "train_seconds" and row.get("train_doubt"):
        doubt = f"trained while {row['train_doubt']}"
    else:
        doubt = ""
    return doubt if pd.notna(row[column]) else ""


def mark_notes(table: pd.DataFrame) -> list[str]:
    """What the marks of a table mean, in at most one sentence."""
    found = {
        doubt: None
        for row in table.to_dict("records")
        for doubt in (cell_doubt("step_ms", row) if "step_ms" in row else "",
                      cell_doubt("train_seconds", row) if "train_seconds" in row else "")
        if doubt
    }  # fmt: skip
    return [f"{MARK} not to be trusted: {'; '.join(found)}"] if found else []


def disturbed_note(speed: pd.DataFrame) -> list[str]:
    """A sentence for a caption on the sizes at which times are not to be trusted."""
    sizes = ", ".join(f"{size:,}" for size in disturbed_sizes(speed))
    return [f"Disturbed, and not to be trusted, at V = {sizes}."] if sizes else []
