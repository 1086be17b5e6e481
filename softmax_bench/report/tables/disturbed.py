"""Whether what was measured is marked as disturbed, as the columns ``disturbance_*`` tell."""

from __future__ import annotations

import pandas as pd

from softmax_bench.records.result import Disturbance

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
