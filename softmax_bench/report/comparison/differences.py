"""Differences between two result sets: configuration fields that should be equal."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from softmax_bench.records.frames import Results
from softmax_bench.report.tables.selection import best_trials, configuration_fields, latest_speed

_VARIED = {"layer", "vocab_size", "corpus_sha256", "learning_rate", "tuned", "seed"}
"""Fields that match cells, are chosen for each layer, or follow from the vocabulary size."""
_MACHINE = ("processor", "cores", "accelerator", "driver", "blas", "variables")


def differences(a: Results, b: Results) -> list[str]:
    """Sentences that name the fields in which training, timing or the machine differ."""
    sentences = []
    for kind, what, one, other in (
        ("train", "training", best_trials(a), best_trials(b)),
        ("speed", "timing", latest_speed(a), latest_speed(b)),
    ):
        fields = [name for name in configuration_fields(kind) if name not in _VARIED]
        sentences += _differing(what, one, other, fields)
    one, other = (_with_versions(results.environments) for results in (a, b))
    versions = [name for name in one if name.startswith("version of") and name in other]
    return sentences + _differing("machine", one, other, [*_MACHINE, *versions])


def _with_versions(environments: pd.DataFrame) -> pd.DataFrame:
    """One column per package instead of one mapping for all."""
    versions = pd.DataFrame(environments["versions"].tolist(), index=environments.index)
    return environments.join(versions.add_prefix("version of "))


def _differing(what: str, a: pd.DataFrame, b: pd.DataFrame, fields: Sequence[str]) -> list[str]:
    if a.empty or b.empty:
        return []
    differing = [
        f"{name} ({_values(a[name])} against {_values(b[name])})"
        for name in fields
        if _values(a[name]) != _values(b[name])
    ]
    if not differing:
        return []
    return [f"the results are not comparable: the {what} differs in {', '.join(differing)}"]


def _values(column: pd.Series[object]) -> str:
    return ", ".join(sorted({str(value) for value in column}))
