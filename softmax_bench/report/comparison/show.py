"""A comparison, printed in the terminal or as Markdown for a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from softmax_bench.report.comparison.compare import Comparison
from softmax_bench.report.style import terminal_table
from softmax_bench.report.tables.disturbed import MARK

if TYPE_CHECKING:
    from rich.console import Console

_GROUPS = (
    ("time", "A is", "memory"),
    ("ppl A", "ppl B", "ppl change", "A's ppl is"),
)
"""Columns of the two tables in a terminal."""
_NUMERIC = ("V", "memory", "ppl A", "ppl B")
_EXPLANATION = "Ratios are A / B, with 95 % intervals in brackets."


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown: the two sides, the verdict counts, the cells and warnings."""
    cells = _cells(comparison.table)
    cells["layer"] = [f"`{layer}`" for layer in cells["layer"]]
    rows = [list(cells.columns), ["---"] * cells.shape[1], *cells.to_numpy().tolist()]
    table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines = [f"A: `{comparison.a}`, B: `{comparison.b}`. {_EXPLANATION}", ""]
    lines += [*(f"* {count}" for count in _counts(comparison.table)), "", *table, ""]
    lines += [f"> Warning: {warning}.  " for warning in comparison.warnings]
    return "\n".join(lines) + "\n"


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the same in a terminal."""
    from rich.text import Text

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False)

    say(f"A: {comparison.a}\nB: {comparison.b}\n{_EXPLANATION}")
    cells = _cells(comparison.table)
    for group in _GROUPS:  # side by side they do not fit a terminal
        shown = cells[[heading for heading in cells if heading in ("V", "layer", *group)]]
        if not set(group) & set(shown):
            continue
        table = terminal_table()
        for heading in shown.columns:
            table.add_column(
                heading,
                justify="right" if heading in _NUMERIC else "left",
                no_wrap=heading != "layer",
                overflow="fold",
            )
        for row in shown.to_numpy().tolist():
            table.add_row(*[Text(_for_terminal(cell)) for cell in row])
        console.print(table)
    for reasons in dict.fromkeys(filter(None, comparison.table["time_disturbed"])):
        say(f"{MARK} timing was disturbed: {reasons}", "yellow")
    for count in _counts(comparison.table):
        say(count)
    for warning in comparison.warnings:
        say(f"Warning: {warning}.", "yellow")


def _for_terminal(cell: str) -> str:
    """Make a cell fit: a layer's options go below its name, and a mark replaces a word."""
    name, opened, options = cell.partition("(")
    split = opened and not name.endswith(" ")  # a layer's; intervals have a space before
    if split:
        return f"{name}\n({options}"
    return cell.replace(" found", "").replace(" (disturbed)", MARK)


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """The cells as text, without columns that are entirely empty."""
    rows = [
        {
            "V": f"{row.vocab_size:,}",
            "layer": row.layer,
            "time": _ratio(row.time_ratio, row.time_low, row.time_high),
            "A is": row.time_verdict.removeprefix("A is "),
            "memory": _number(row.memory_ratio),
            "ppl A": _number(row.perplexity_a, 4),
            "ppl B": _number(row.perplexity_b, 4),
            "ppl change": _change(row.perplexity_ratio, row.perplexity_low, row.perplexity_high),
            "A's ppl is": row.perplexity_verdict.removeprefix("A is "),
        }
        for row in table.itertuples()
    ]
    cells = pd.DataFrame(rows)
    return cells.loc[:, (cells != "").any()]


def _counts(table: pd.DataFrame) -> list[str]:
    """Sentences that count the verdicts, one for time and one for perplexity."""
    sentences = []
    for what, column in (("Time", "time_verdict"), ("Perplexity", "perplexity_verdict")):
        verdicts = table.loc[table[column] != "", column].value_counts()
        if len(verdicts):
            counts = ", ".join(f"{verdict} in {count}" for verdict, count in verdicts.items())
            sentences.append(f"{what}: {counts} of {verdicts.sum()}.")
    return sentences


def _ratio(ratio: float, low: float, high: float) -> str:
    bounds = "" if np.isnan(low) else f" ({low:.3g}-{high:.3g})"
    return _number(ratio) + bounds


def _change(ratio: float, low: float, high: float) -> str:
    if np.isnan(ratio):
        return ""
    bounds = "" if np.isnan(low) else f" ({low - 1:+z.1%} to {high - 1:+z.1%})"
    return f"{ratio - 1:+z.1%}{bounds}"


def _number(value: Any, digits: int = 3) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}g}"
