"""The one table that everything in a report comes from: a row a layer and vocabulary size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import t

from softmax_bench.records.frames import Results, derived
from softmax_bench.report.style import markdown_row, printable
from softmax_bench.report.tables.disturbed import (
    DOUBTS,
    MARK,
    cell_doubt,
    disturbance_text,
    mark_notes,
    step_doubt,
)
from softmax_bench.report.tables.fidelity import fidelity_table

if TYPE_CHECKING:
    from rich.console import Console

KEY = ["vocab_size", "layer"]
TUNED = ["learning_rate", "tuned"]
"""What each layer may have of its own, found by tuning."""
PHASES = ("draw", "forward", "backward", "clip", "optimizer", "evaluation", "decoding")
_MEMORY = ("activations", "gradients", "optimizer")
_VARIED = {
    "train": {*KEY, "corpus_sha256", "learning_rate", "tuned", "max_tokens", "seed", "tuning"},
    "speed": {*KEY, "seed"},
}
"""What may differ between rows that are set side by side."""

COLUMNS = {
    "vocab_size": "V",
    "layer": "layer",
    "test_perplexity": "test ppl",
    "test_low": "from",
    "test_high": "to",
    "adjusted_perplexity": "ppl, unknown charged",
    "bits_per_byte": "bits per byte",
    "excess": "ppl / true ppl",
    "top1": "top 1",
    "top10": "recall at 10",
    "ndcg10": "NDCG at 10",
    "train_perplexity": "training text ppl",
    "unnormalized_perplexity": "unnormalised ppl",
    "log_z_mean": "mean log Z",
    "log_z_sd": "sd log Z",
    "learning_rate": "learning rate",
    "tuned": "tuned",
    "train_tokens": "training tokens",
    "train_seconds": "training s",
    "step_ms": "step ms",
    "speedup": "x full",
    "draw_ms": "draw ms",
    "forward_ms": "forward ms",
    "backward_ms": "backward ms",
    "clip_ms": "clip ms",
    "optimizer_ms": "optimizer ms",
    "evaluation_ms": "evaluation ms",
    "decoding_ms": "decoding ms",
    "memory_mb": "memory MB",
    "activations_mb": "activations MB",
    "gradients_mb": "gradients MB",
    "optimizer_mb": "optimiser's state MB",
    "parameters": "parameters",
    "repetitions": "repetitions",
    "stopped": "stopped: precise, or by",
    "gflops": "GFLOP/s",
    "gbytes": "GB/s",
    "of_possible": "of possible",
    "bound": "bound",
    "divergence": "KL to full",
    "gradient_bias": "gradient bias",
    "gradient_variance": "gradient variance",
    "gradient_cosine": "gradient cosine",
    "effective_samples": "effective samples",
    "gradient_samples": "of samples",
    "learned_log_z_mean": "mean log Z, learned",
    "learned_log_z_sd": "sd log Z, learned",
}
"""Columns of the printed tables and their headings."""

ESSENTIAL = {
    "vocab_size", "layer", "test_perplexity", "test_low", "test_high", "excess", "train_seconds",
    "step_ms", "speedup", "memory_mb", "parameters", "divergence", "train_tokens",
}  # fmt: skip
"""Columns that a page shows before it is asked for all."""


def one_configuration(frame: pd.DataFrame, kind: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows whose configuration is that of the latest, and a warning if there are others.

    Args:
        frame: ``Results.train`` or ``Results.speed``.
        kind: ``"train"`` or ``"speed"``.
    """
    if frame.empty:
        return frame, []
    fields = [name for name in configuration_fields(kind) if name not in _VARIED[kind]]
    known = frame[fields].astype(object).where(frame[fields].notna(), "none")  # none equals none
    latest = frame["started"].sort_values().index[-1]
    same = (known == known.loc[latest]).all(axis=1)
    if same.all():
        return frame, []
    differing = [name for name in fields if known[name].nunique() > 1]
    left_out = frame.loc[~same, "id"].nunique()
    return frame[same], [
        f"{left_out} {kind} record(s) are left out: their {', '.join(differing)} differ from the "
        "latest; unlike things are not compared"
    ]


_SHARED = ("hidden_size", "num_tokens", "optimizer", "clip_norm", "device", "dtype")
"""What training and timing must have in common to stand in one row."""


def one_study(results: Results) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Trained models and timings that belong together: those like the latest record.

    Returns:
        Rows of ``results.train``, rows of ``results.speed``, and a warning for what is left out.
    """
    found = {"train": results.train, "speed": results.speed}
    latest = {kind: max(frame["started"]) for kind, frame in found.items() if not frame.empty}
    told: list[str] = []
    first: pd.DataFrame | None = None
    for kind in sorted(latest, key=lambda kind: latest[kind], reverse=True):
        if first is not None:
            found[kind], left_out = _like(found[kind], _shared(first).iloc[-1], kind)
            told += left_out
        found[kind], left_out = one_configuration(found[kind], kind)
        told += left_out
        first = found[kind]
    return found["train"], found["speed"], told


def _shared(frame: pd.DataFrame) -> pd.DataFrame:
    """The fields that training and timing have in common, the latest record last."""
    frame = frame.sort_values("started")
    if "num_tokens" not in frame:
        frame = frame.assign(num_tokens=frame["batch_size"] * frame["bptt"])
    return frame[["id", *_SHARED]]


def _like(frame: pd.DataFrame, one: pd.Series, kind: str) -> tuple[pd.DataFrame, list[str]]:
    shared = _shared(frame).loc[frame.index]
    same = pd.Series(True, index=frame.index)
    differing = []
    for name in _SHARED:
        # Clipping is not known of timings from before it was a phase of the step.
        equal = (shared[name] == one[name]) | shared[name].isna() | pd.isna(one[name])
        same &= equal
        differing += [] if equal.all() else [name]
    if same.all():
        return frame, []
    other = "trained models" if kind == "speed" else "timings"
    return frame[same], [
        f"{frame.loc[~same, 'id'].nunique()} {kind} record(s) are left out: their "
        f"{', '.join(differing)} differ from those of the {other}; unlike things are not compared"
    ]


def configuration_fields(kind: str) -> tuple[str, ...]:
    """What a trial of a kind, ``"train"`` or ``"speed"``, is told to be."""
    from softmax_bench.records.trial import SpeedTrial, TrainTrial

    return (TrainTrial if kind == "train" else SpeedTrial).__struct_fields__


@derived
def best_trials(results: Results) -> pd.DataFrame:
    """The trained models of each layer and vocabulary size: full budget, best learning rate.

    One row a seed. Tuning, and trials with a smaller budget, were for finding the learning rate.
    The choice is by mean validation perplexity among the rates that were tried with most seeds;
    test perplexity takes no part in it.
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


def references(results: Results) -> pd.DataFrame:
    """What no layer has part in: perplexity of the source itself, and of an n-gram model.

    One row a reference and vocabulary size, for the texts of :func:`best_trials`: ``reference``,
    ``vocab_size``, ``valid_perplexity``, ``test_perplexity``, ``excess`` (over the source's).
    """
    best = best_trials(results)
    columns = ["reference", "vocab_size", "valid_perplexity", "test_perplexity", "excess"]
    rows: list[dict[str, Any]] = []
    if best.empty:
        return pd.DataFrame(rows, columns=columns)
    source = best.dropna(subset="test_true_perplexity").drop_duplicates("vocab_size")
    rows += [
        {"reference": "the source itself", "vocab_size": row.vocab_size}
        | {"valid_perplexity": row.valid_true_perplexity}
        | {"test_perplexity": row.test_true_perplexity, "excess": 1.0}
        for row in source.itertuples()
    ]
    if not results.ngrams.empty:
        known = results.ngrams[results.ngrams["corpus_sha256"].isin(best["corpus_sha256"])]
        rows += [
            {"reference": f"{row.order}-gram model", "vocab_size": row.vocab_size}
            | {"valid_perplexity": row.valid_perplexity, "test_perplexity": row.test_perplexity}
            | {"excess": row.test_perplexity / (row.test_true_perplexity or np.nan)}
            for row in known.itertuples()
        ]
    return pd.DataFrame(rows, columns=columns).sort_values(columns[:2], ignore_index=True)


@derived
def latest_speed(results: Results) -> pd.DataFrame:
    """The latest timing of every phase of each layer and vocabulary size."""
    _, speed, _ = one_study(results)
    if speed.empty:
        return speed
    return speed.sort_values("started").groupby([*KEY, "phase"], as_index=False).last()


@derived
def summary_table(results: Results) -> pd.DataFrame:
    """One row a layer and vocabulary size, sorted; what was not measured is missing.

    ``excess`` is test perplexity over that of the true source, where that is known; ``speedup``
    the step time of full softmax at the same V over the layer's own; ``divergence`` and
    ``gradient_*`` are those of :func:`softmax_bench.report.tables.fidelity.fidelity_table`.
    ``step_doubt`` and ``train_doubt`` say in words why the times are not to be trusted.
    """
    table = pd.DataFrame(columns=KEY)
    for part in (_quality(results), _speed(results), _fidelity(results)):
        if not part.empty:
            table = part if table.empty else table.merge(part, on=KEY, how="outer")
    for doubt in DOUBTS:
        if doubt in table:
            table[doubt] = table[doubt].astype(object).where(table[doubt].notna(), "")
    return table.sort_values(KEY).reset_index(drop=True)


def _fidelity(results: Results) -> pd.DataFrame:
    table = fidelity_table(results)
    names = {
        "divergence": "divergence",
        "bias": "gradient_bias",
        "variance": "gradient_variance",
        "cosine": "gradient_cosine",
        "effective_samples": "effective_samples",
        "num_samples": "gradient_samples",
        "learned_log_z_mean": "learned_log_z_mean",
        "learned_log_z_sd": "learned_log_z_sd",
    }
    known = [name for name in names if name in table]
    return table[[*KEY, *known]].rename(columns=names) if known else table


def _quality(results: Results) -> pd.DataFrame:
    best = best_trials(results)
    if best.empty:
        return best
    measured = {
        "valid_perplexity": "valid_perplexity",
        "test_perplexity": "test_perplexity",
        "true_perplexity": "test_true_perplexity",
        "adjusted_perplexity": "test_adjusted_perplexity",
        "bits_per_byte": "test_bits_per_byte",
        "train_perplexity": "train_perplexity",
        "unnormalized_perplexity": "test_unnormalized_perplexity",
        "log_z_mean": "test_log_z_mean",
        "log_z_sd": "test_log_z_sd",
        "top1": "test_top1",
        "top10": "test_top10",
        "ndcg10": "test_ndcg10",
        "train_tokens": "train_tokens",
        "train_seconds": "train_seconds",
    }
    best = best.astype(dict.fromkeys(measured.values(), float))
    groups = best.groupby(KEY)
    table = groups[list(measured.values())].mean()
    table.columns = pd.Index(list(measured))
    table[["corpus", *TUNED]] = groups[["corpus", *TUNED]].first()
    if not table["tuned"].any():
        table = table.drop(columns="tuned")
    table["seeds"] = groups.size()
    doubts = {key: disturbance_text(rows) for key, rows in groups}
    table["train_doubt"] = [doubts[key] for key in table.index]
    # Student's interval of the mean over seeds; one seed has none.
    spread = groups["test_perplexity"].sem()
    half = spread * t.ppf(0.975, (table["seeds"] - 1).clip(lower=1))
    table["test_low"] = table["test_perplexity"] - half
    table["test_high"] = table["test_perplexity"] + half
    table["excess"] = table["test_perplexity"] / table["true_perplexity"]
    if np.allclose(table["adjusted_perplexity"], table["test_perplexity"]):
        table = table.drop(columns="adjusted_perplexity")  # there are no unknown words to charge
    return table.reset_index()


def _speed(results: Results) -> pd.DataFrame:
    speed = latest_speed(results)
    if speed.empty:
        return speed
    step = speed[speed["phase"] == "step"].set_index(KEY)
    table = pd.DataFrame(
        {
            "step_ms": step["seconds"] * 1e3,
            "step_low_ms": step["low"] * 1e3,
            "step_high_ms": step["high"] * 1e3,
            "memory_mb": step["peak_bytes"] / 1e6,
            "parameters": step["parameters"],
            "rows_touched": step["rows_touched"],
            "repetitions": step["repetitions"],
            "stopped": step["stopped"],
            "gflops": step["flops"] / step["seconds"] / 1e9,
            "gbytes": step["bytes"] / step["seconds"] / 1e9,
        }
    )
    for part in _MEMORY:
        if f"memory_{part}" in step:
            table[f"{part}_mb"] = step[f"memory_{part}"].astype(float) / 1e6
    for phase in PHASES:
        table[f"{phase}_ms"] = speed[speed["phase"] == phase].set_index(KEY)["seconds"] * 1e3
    if "machine_flops" in step:
        # The best rate seen: one that was measured on a busy machine is no bound.
        products = step["flops"] / step["machine_flops"].astype(float).max()
        traffic = step["bytes"] / step["machine_bytes"].astype(float).max()
        passes = table[["draw_ms", "forward_ms", "backward_ms"]].sum(axis=1, min_count=2) / 1e3
        table["of_possible"] = np.maximum(products, traffic) / passes
        table["bound"] = np.where(products >= traffic, "compute", "memory")
        table.loc[table["of_possible"].isna(), "bound"] = ""
    table["step_doubt"] = [step_doubt(row) for _, row in step.iterrows()]
    table = table.reset_index()
    full = table.loc[table["layer"] == "full"].set_index("vocab_size")["step_ms"]
    table["speedup"] = table["vocab_size"].map(full) / table["step_ms"]
    of_full = table.loc[table["layer"] == "full"].set_index("vocab_size")["step_doubt"]
    table["full_doubt"] = table["vocab_size"].map(of_full)
    return table


def shown_columns(table: pd.DataFrame) -> list[str]:
    """Columns that say something: empty ones do not, nor equal numbers of training tokens."""
    return [
        name
        for name in COLUMNS
        if name in table
        and table[name].notna().any()
        and not (name == "train_tokens" and table[name].nunique() == 1)
    ]


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text, with headings for people; what is not to be trusted has a mark."""
    text = {
        COLUMNS[name]: [
            cell_text(name, row[name]) + (MARK if cell_doubt(name, row) else "")
            for row in table.to_dict("records")
        ]
        for name in shown_columns(table)
    }
    return pd.DataFrame(text).astype(str)


def cell_text(column: str, value: Any) -> str:
    """A value of a column of the table, for people."""
    if isinstance(value, str):
        return value
    if value is None or np.isnan(value):
        return ""
    if column in ("vocab_size", "parameters", "train_tokens"):
        return f"{int(value):,}"
    if column == "learning_rate":
        return f"{value:g}"
    if column in ("top1", "top10"):
        return f"{value:.1%}"
    if column == "of_possible":
        return f"{value:.0%}"
    if column in ("excess", "log_z_mean", "log_z_sd", "learned_log_z_mean", "learned_log_z_sd"):
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def markdown_table(table: pd.DataFrame) -> str:
    """The table in Markdown."""
    text = format_table(table)
    rows = [list(text.columns), ["---"] * text.shape[1], *text.to_numpy().tolist()]
    notes = [f"\n{printable(note)}" for note in mark_notes(table)]
    return "\n".join([*map(markdown_row, rows), *notes]) + "\n"


_NARROW = {
    "vocab_size": "V",
    "layer": "layer",
    "test_perplexity": "test ppl",
    "excess": "x true ppl",
    "top1": "top 1",
    "train_tokens": "tokens",
    "train_seconds": "train s",
    "step_ms": "step ms",
    "speedup": "x full",
    "memory_mb": "MB",
    "divergence": "KL to full",
}
"""Columns that fit a terminal, and their headings."""


def print_table(table: pd.DataFrame, console: Console) -> None:
    """Print the columns that matter most, a block a vocabulary size."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    text = format_table(table[[name for name in (*_NARROW, *DOUBTS) if name in table]])
    narrow = {COLUMNS[name]: heading for name, heading in _NARROW.items()}
    drawn = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in text.columns:
        if heading == "layer":
            drawn.add_column(heading, overflow="fold")
        else:
            drawn.add_column(narrow[heading], justify="right", no_wrap=True)
    previous = None
    for row in text.to_numpy().tolist():
        if previous is not None and row[0] != previous:
            drawn.add_section()
        drawn.add_row(*[Text(printable(cell)) for cell in row])
        previous = row[0]
    console.print(drawn)
    for note in mark_notes(table):
        console.print(Text(printable(note), style="yellow"))
