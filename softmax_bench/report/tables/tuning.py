"""The results of tuning, and how sharp each optimum is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from softmax_bench.records.frames import Results, derived
from softmax_bench.records.trial import preferred
from softmax_bench.report.style import terminal_table
from softmax_bench.report.tables.selection import KEY, TUNED, one_study

if TYPE_CHECKING:
    from rich.console import Console

NEAR = 1.05
"""Perplexities within this factor of the best count as nearly as good."""


@derived
def tuning_table(results: Results) -> pd.DataFrame:
    """One row per tuned layer and vocabulary size: the trial preferred, and the trials close to it.

    ``near_low`` and ``near_high`` are the lowest and highest learning rates that were nearly as
    good (:data:`NEAR`); they are far apart if the optimum is broad. ``bracketed`` says whether
    rates below and above the best were tried, including those at which training failed.
    """
    train, _, _ = one_study(results)
    rows: list[dict[str, Any]] = []
    for (size, layer), trials in train.groupby(KEY) if not train.empty else ():
        at_budget = most_rates(trials)
        rates = at_budget["learning_rate"]
        if rates.nunique() < 2:
            continue
        best = at_budget.set_index(TUNED, drop=False).loc[[preferred(_nats(at_budget))]].iloc[0]
        perplexity = at_budget["valid_perplexity"]
        near = at_budget[perplexity <= NEAR * perplexity.min()]
        failed = _failed_rates(results, at_budget.iloc[0])
        rows.append(
            {
                "vocab_size": size,
                "layer": layer,
                "trials": len(at_budget),
                "tokens": at_budget["max_tokens"].iloc[0],
                "valid_perplexity": best["valid_perplexity"],
                "learning_rate": best["learning_rate"],
                "tuned": best["tuned"],
                "near_low": near["learning_rate"].min(),
                "near_high": near["learning_rate"].max(),
                "bracketed": min([*rates, *failed]) < best["learning_rate"]
                and best["learning_rate"] < max([*rates, *failed]),
            }
        )
    return pd.DataFrame(rows)


def most_rates(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows of the budget at which most learning rates were tried."""
    budgets = trials.groupby(["tuning", "max_tokens"])["learning_rate"]
    return trials.loc[budgets.groups[budgets.nunique().idxmax()]]


def _nats(trials: pd.DataFrame) -> dict[tuple[float, str], float]:
    nats: dict[tuple[float, str], float] = trials.groupby(TUNED)["valid_nats"].mean().to_dict()
    return nats


def _failed_rates(results: Results, like: pd.Series) -> list[float]:
    """Learning rates at which an otherwise equal training gave no result."""
    failures = results.failures
    if failures.empty or "learning_rate" not in failures:
        return []
    same = [*KEY, "corpus_sha256", "max_tokens"]
    rates: list[float] = failures.loc[
        (failures[same] == like[same]).all(axis=1), "learning_rate"
    ].tolist()
    return rates


def print_tuning(table: pd.DataFrame, console: Console) -> None:
    """Print the table."""
    from rich.text import Text

    drawn = terminal_table()
    for heading in ("V", "layer", "trials", "valid ppl", "learning rate", "within 5 %", "tuned"):
        drawn.add_column(heading, overflow="fold")
    for row in table.itertuples():
        rate = f"{row.learning_rate:g}" + ("" if row.bracketed else " (not bracketed)")
        cells = [
            f"{row.vocab_size:,}", row.layer, str(row.trials), f"{row.valid_perplexity:.4g}", rate,
            f"{row.near_low:g} to {row.near_high:g}", row.tuned,
        ]  # fmt: skip
        drawn.add_row(*map(Text, cells))
    console.print(drawn)
