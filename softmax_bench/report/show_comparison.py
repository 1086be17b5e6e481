"""A comparison for the terminal, and in Markdown for a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from softmax_bench.report.compare import Comparison

if TYPE_CHECKING:
    from rich.console import Console


def render(comparison: Comparison, console: Console, *, markdown: bool = False) -> None:
    """Print a comparison, as a table or in Markdown."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    headings = [
        "V",
        "layer",
        "time A/B",
        "bounds",
        "verdict",
        "memory",
        "ppl A",
        "ppl B",
        "change",
        "bounds",
        "verdict",
    ]
    rows = [
        [
            f"{row.vocab_size:,}",
            str(row.layer),
            _number(row.time_ratio),
            "" if np.isnan(row.time_low) else f"{row.time_low:.3g}-{row.time_high:.3g}",
            row.time_verdict,
            _number(row.memory_ratio),
            _number(row.perplexity_a, 4),
            _number(row.perplexity_b, 4),
            "" if np.isnan(row.perplexity_change) else f"{row.perplexity_change:+.1%}",
            ""
            if np.isnan(row.perplexity_low)
            else f"{row.perplexity_low - 1:+.1%} to {row.perplexity_high - 1:+.1%}",
            row.perplexity_verdict,
        ]
        for row in comparison.table.itertuples()
    ]
    if markdown:
        for line in [headings, ["---"] * len(headings), *rows]:
            console.out("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |")
    else:
        table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
        for heading in headings:
            wraps = heading in ("layer", "verdict")
            table.add_column(heading, no_wrap=not wraps, min_width=12 if wraps else None)
        for line in rows:
            table.add_row(*[cell.replace("[", r"\[") for cell in line])
        console.print(table)
    for warning in comparison.warnings:
        console.print(f"Warning: {warning}.", style="yellow", markup=False, highlight=False)


def _number(value: float, digits: int = 3) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}g}"
