"""The summary table as shown: headings, and values as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from softmax_bench.report.style import markdown_row, printable, terminal_table
from softmax_bench.report.tables.disturbed import DOUBTS, MARK, cell_doubt, mark_notes

if TYPE_CHECKING:
    from rich.console import Console

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
"""Columns of the printed tables, with their headings."""

ESSENTIAL = {
    "vocab_size", "layer", "test_perplexity", "test_low", "test_high", "excess", "train_seconds",
    "step_ms", "speedup", "memory_mb", "parameters", "divergence", "train_tokens",
}  # fmt: skip
"""Columns that a page shows by default."""


def shown_columns(table: pd.DataFrame) -> list[str]:
    """Informative columns: neither empty ones nor equal numbers of training tokens."""
    return [
        name
        for name in COLUMNS
        if name in table
        and table[name].notna().any()
        and not (name == "train_tokens" and table[name].nunique() == 1)
    ]


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text, with readable headings and marks on unreliable numbers."""
    text = {
        COLUMNS[name]: [
            cell_text(name, row[name]) + (MARK if cell_doubt(name, row) else "")
            for row in table.to_dict("records")
        ]
        for name in shown_columns(table)
    }
    return pd.DataFrame(text).astype(str)


def cell_text(column: str, value: Any) -> str:
    """A value of a column, formatted for reading."""
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
    """The table as Markdown."""
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
"""Columns that fit a terminal, with their headings."""


def print_table(table: pd.DataFrame, console: Console) -> None:
    """Print the most important columns, one block per vocabulary size."""
    from rich.text import Text

    text = format_table(table[[name for name in (*_NARROW, *DOUBTS) if name in table]])
    narrow = {COLUMNS[name]: heading for name, heading in _NARROW.items()}
    drawn = terminal_table()
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
