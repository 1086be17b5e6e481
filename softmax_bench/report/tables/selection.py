"""Which records belong together, and which of them a report shows."""

from __future__ import annotations

import pandas as pd

from softmax_bench.records.frames import Results, derived
from softmax_bench.records.trial import SpeedTrial, TrainTrial

KEY = ["vocab_size", "layer"]
TUNED = ["learning_rate", "tuned"]
"""Fields that each layer may have tuned for itself."""
_VARIED = {
    "train": {*KEY, "corpus_sha256", "learning_rate", "tuned", "max_tokens", "seed", "tuning"},
    "speed": {*KEY, "seed"},
}
"""Fields that may differ between rows that are compared."""


def one_configuration(frame: pd.DataFrame, kind: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows with the configuration of the latest, and a warning if there are others.

    Args:
        frame: ``Results.train`` or ``Results.speed``.
        kind: ``"train"`` or ``"speed"``.
    """
    if frame.empty:
        return frame, []
    fields = [name for name in configuration_fields(kind) if name not in _VARIED[kind]]
    configurations = (
        frame[fields].astype(object).where(frame[fields].notna(), "none")
    )  # none equals none
    latest = frame["started"].sort_values().index[-1]
    same = (configurations == configurations.loc[latest]).all(axis=1)
    if same.all():
        return frame, []
    differing = [name for name in fields if configurations[name].nunique() > 1]
    return frame[same], [_left_out(frame[~same], kind, differing, "the latest")]


_SHARED = ("hidden_size", "num_tokens", "optimizer", "clip_norm", "device", "dtype")
"""Fields that training and timing must share to appear in one row."""


def one_study(results: Results) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Trained models and timings that match the latest record.

    Returns:
        Rows of ``results.train``, rows of ``results.speed``, and a warning about what is left out.
    """
    selected = {"train": results.train, "speed": results.speed}
    latest = {kind: max(frame["started"]) for kind, frame in selected.items() if not frame.empty}
    warnings: list[str] = []
    first: pd.DataFrame | None = None
    for kind in sorted(latest, key=lambda kind: latest[kind], reverse=True):
        if first is not None:
            selected[kind], left_out = _like(selected[kind], _shared(first).iloc[-1], kind)
            warnings += left_out
        selected[kind], left_out = one_configuration(selected[kind], kind)
        warnings += left_out
        first = selected[kind]
    return selected["train"], selected["speed"], warnings


def _shared(frame: pd.DataFrame) -> pd.DataFrame:
    """The fields that training and timing share, with the latest record last."""
    frame = frame.sort_values("started")
    if "num_tokens" not in frame:
        frame = frame.assign(num_tokens=frame["batch_size"] * frame["bptt"])
    return frame[["id", *_SHARED]]


def _like(frame: pd.DataFrame, one: pd.Series, kind: str) -> tuple[pd.DataFrame, list[str]]:
    shared = _shared(frame).loc[frame.index]
    same = pd.Series(True, index=frame.index)
    differing = []
    for name in _SHARED:
        # Clipping is unknown in timings from before it was a phase of the step.
        equal = (shared[name] == one[name]) | shared[name].isna() | pd.isna(one[name])
        same &= equal
        differing += [] if equal.all() else [name]
    if same.all():
        return frame, []
    other = "trained models" if kind == "speed" else "timings"
    return frame[same], [_left_out(frame[~same], kind, differing, f"those of the {other}")]


def _left_out(rows: pd.DataFrame, kind: str, differing: list[str], others: str) -> str:
    return (
        f"{kind} records left out: {rows['id'].nunique()}; their {', '.join(differing)} differ "
        f"from {others}, and only equal settings are compared"
    )


def configuration_fields(kind: str) -> tuple[str, ...]:
    """The configuration fields of a kind of trial, ``"train"`` or ``"speed"``."""
    return (TrainTrial if kind == "train" else SpeedTrial).__struct_fields__


@derived
def best_trials(results: Results) -> pd.DataFrame:
    """The trained models of each layer and vocabulary size, at full budget and best rate.

    There is one row per seed. Tuning trials and trials with a smaller budget only served to find
    the learning rate. It is chosen by mean validation perplexity among the rates with the most
    seeds; test perplexity is not used.
    """
    train, _, _ = one_study(results)
    if train.empty:
        return train
    train = train[~train["tuning"]]
    full = train[train["max_tokens"] == train.groupby(KEY)["max_tokens"].transform("max")]
    rates = full.groupby([*KEY, *TUNED], as_index=False).agg(
        seeds=("seed", "nunique"), valid=("valid_perplexity", "mean")
    )
    rates = rates.sort_values(["seeds", "valid"], ascending=[False, True])
    best = rates.drop_duplicates(KEY)[[*KEY, *TUNED]]
    return full.merge(best, on=[*KEY, *TUNED]).sort_values([*KEY, "seed"], ignore_index=True)


@derived
def latest_speed(results: Results) -> pd.DataFrame:
    """The latest timing of every phase of each layer and vocabulary size."""
    _, speed, _ = one_study(results)
    if speed.empty:
        return speed
    return speed.sort_values("started").groupby([*KEY, "phase"], as_index=False).last()
