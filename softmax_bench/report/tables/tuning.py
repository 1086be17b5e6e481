"""What tuning found, and how sharp each optimum is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from softmax_bench.records.frames import Results
from softmax_bench.report.tables.summary import KEY, one_study

if TYPE_CHECKING:
    from rich.console import Console

NEAR = 1.05
"""Perplexities within this factor of the best count as nearly as good."""


def tuning_table(results: Results) -> pd.DataFrame:
    """One row a layer and vocabulary size that was tuned: the best trial, and the trials near it.

    ``near_low`` and ``near_high`` are the least and greatest learning rates that were nearly as
    good (:data:`NEAR`): far apart where the optimum is broad. ``at_end`` says that the best rate is
    the least or greatest that was tried, so that the optimum may lie beyond.
    """
    train, _, _ = one_study(results)
    rows: list[dict[str, Any]] = []
    for (size, layer), trials in train.groupby(KEY) if not train.empty else ():
        tried = trials.groupby("max_tokens")["learning_rate"].nunique()
        if tried.max() < 2:
            continue
        at_budget = trials[trials["max_tokens"] == tried.idxmax()]
        best = at_budget.loc[at_budget["valid_perplexity"].idxmin()]
        near = at_budget[at_budget["valid_perplexity"] <= NEAR * best["valid_perplexity"]]
        rates = at_budget["learning_rate"]
        rows.append(
            {
                "vocab_size": size,
                "layer": layer,
                "trials": len(at_budget),
                "tokens": tried.idxmax(),
                "valid_perplexity": best["valid_perplexity"],
                "learning_rate": best["learning_rate"],
                "tuned": best["tuned"],
                "near_low": near["learning_rate"].min(),
                "near_high": near["learning_rate"].max(),
                "at_end": best["learning_rate"] in (rates.min(), rates.max()),
            }
        )
    return pd.DataFrame(rows)


def print_tuning(table: pd.DataFrame, console: Console) -> None:
    """Print it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("V", "layer", "trials", "valid ppl", "learning rate", "within 5 %", "tuned"):
        drawn.add_column(heading, overflow="fold")
    for row in table.itertuples():
        rate = f"{row.learning_rate:g}" + (" (at an end)" if row.at_end else "")
        cells = [
            f"{row.vocab_size:,}", row.layer, str(row.trials), f"{row.valid_perplexity:.4g}", rate,
            f"{row.near_low:g} to {row.near_high:g}", row.tuned,
        ]  # fmt: skip
        drawn.add_row(*map(Text, cells))
    console.print(drawn)
