"""Which layer wins where, in sentences and as a table of winners."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from softmax_bench.records.frames import Results
from softmax_bench.report.style import number_text
from softmax_bench.report.tables.disturbed import disturbed_sizes
from softmax_bench.report.tables.price import price_table
from softmax_bench.report.tables.selection import best_trials, latest_speed
from softmax_bench.report.tables.summary import summary_table

_MARGIN = 0.01
"""Results without intervals count as equal if they are within one per cent of each other."""


@dataclass(frozen=True)
class Winner:
    """The best layers at one vocabulary size, by one criterion."""

    layers: list[str]
    """The best layer, then those whose intervals reach it."""
    value: str
    note: str = ""
    """How far below full softmax, unless level with it, and whether the times were disturbed."""
    disturbed: bool = False
    """Whether the machine was disturbed at this size, which makes times unreliable."""

    @property
    def level(self) -> str:
        """The other layers, in words, full softmax first."""
        others = sorted(self.layers[1:], key=lambda layer: layer != "full")
        return _listed(others) if others else ""


@dataclass(frozen=True)
class Criterion:
    """A criterion, and the best layers by vocabulary size."""

    name: str
    winners: dict[int, Winner]


def winners(results: Results) -> list[Criterion]:
    """The best layers by each measured criterion; lower is better for all of them."""
    table = summary_table(results)
    prices = price_table(results)
    if not prices.empty:
        table = table.merge(prices, on=["vocab_size", "layer"], how="left")
    criteria = []
    # A disturbed layer may have lost because of that, so the mark applies to all layers.
    timed = disturbed_sizes(latest_speed(results))
    trained = disturbed_sizes(best_trials(results))
    for name, column, bounds, unit, disturbed in (
        ("fastest training step", "step_ms", ("step_low_ms", "step_high_ms"), " ms", timed),
        ("lowest test perplexity", "test_perplexity", ("test_low", "test_high"), "", {}),
        ("first to reach the target perplexity", "seconds_to_target", None, " s", trained),
        ("best perplexity in equal time", "perplexity_at_equal_seconds", None, "", trained),
        ("least memory", "memory_mb", None, " MB", {}),
    ):
        if column not in table:
            continue
        measured = table.dropna(subset=column)
        by_size = {
            int(size): _winner(rows, column, bounds, unit, int(size) in disturbed)
            for size, rows in measured.groupby("vocab_size")
            if len(rows) > 1
        }
        if "perplexity" in name:
            for size, winner in by_size.items():
                if _unsettled(results, size) is not None:
                    note = ", ".join(filter(None, [winner.note, "not converged"]))
                    by_size[size] = replace(winner, note=note)
        if by_size:
            criteria.append(Criterion(name, by_size))
    return criteria


def _winner(
    rows: pd.DataFrame,
    column: str,
    bounds: tuple[str, str] | None,
    unit: str,
    disturbed: bool,
) -> Winner:
    tied = level_with_best(rows, column, bounds)
    best = rows.sort_values(column).iloc[0]
    notes = []
    full = rows.loc[rows["layer"] == "full", column]
    if not full.empty and "full" not in tied:
        ratio = full.iloc[0] / best[column]
        notes.append(
            f"{_number(ratio)} times less than full"
            if ratio >= 1.5
            else f"{1 - 1 / ratio:.1%} below full"
        )
    if disturbed:
        notes.append("disturbed")
    return Winner(tied, f"{_number(best[column])}{unit}", ", ".join(notes), disturbed)


def level_with_best(
    rows: pd.DataFrame, column: str, bounds: tuple[str, str] | None = None
) -> list[str]:
    """The layer with the smallest value, then those indistinguishable from it."""
    rows = rows.dropna(subset=column).sort_values(column)
    if rows.empty:
        return []
    best = rows.iloc[0]
    reach = best[column] * (1 + _MARGIN)
    lows = rows[column]
    if bounds is not None:
        reach = max(reach, np.nan_to_num(best[bounds[1]]))
        lows = rows[bounds[0]].fillna(rows[column])
    level = rows.loc[lows <= reach, "layer"].tolist()
    return [best["layer"], *[layer for layer in level if layer != best["layer"]]]


@dataclass(frozen=True)
class Answer:
    """Which layers are best at the largest measured vocabulary, in words."""

    finding: str
    """One sentence."""
    reserve: str = ""
    """Sentences on what the finding rests on and why it may change; empty if it is beyond doubt."""


def answer(results: Results) -> Answer:
    """The answer, for the largest measured vocabulary."""
    table = summary_table(results)
    by_criterion = {criterion.name: criterion.winners for criterion in winners(results)}
    fast = by_criterion.get("fastest training step", {})
    good = by_criterion.get("lowest test perplexity", {})
    size = max(set(fast) & set(good) or set(fast) or set(good), default=None)
    if size is None and "divergence" in table:
        nearest = table.loc[table["divergence"].idxmin()]
        return Answer(
            f"At V = {nearest['vocab_size']:,}, {nearest['layer']} ends closest to the full model, "
            f"{_number(nearest['divergence'])} nats apart."
        )
    if size is None:
        return Answer("There is only one layer, so there is nothing to compare.")
    at = table[table["vocab_size"] == size].set_index("layer")
    parts, reserves = [], []
    if size in fast:
        parts.append(_fastest(fast[size], at))
        if fast[size].disturbed:
            reserves.append("The machine was disturbed, so the times are unreliable.")
    if size in good:
        parts.append(_lowest(good[size], fast.get(size), at))
        if at["seeds"].min() == 1:
            which = "Perplexities" if at["seeds"].max() == 1 else "Some perplexities"
            reserves.append(f"{which} are those of one seed.")
        if (unsettled := _unsettled(results, size)) is not None:
            reserves.append(unsettled)
    return Answer(f"At V = {size:,}, {', and '.join(parts)}.", " ".join(reserves))


def _fastest(winner: Winner, at: pd.DataFrame) -> str:
    """Which layer is fastest, in words."""
    name = winner.layers[0]
    words = f"{name} is fastest ({winner.value} per training step"
    if name != "full" and pd.notna(at.loc[name, "speedup"]):
        words += f", {_number(at.loc[name, 'speedup'])} times full softmax's speed"
    return f"{words}){_level(winner)}"


def _lowest(winner: Winner, fastest: Winner | None, at: pd.DataFrame) -> str:
    """Which layer has the lowest perplexity, in words, and how much worse the fastest one is."""
    name = winner.layers[0]
    quick = None if fastest is None else fastest.layers[0]
    if quick in winner.layers[1:]:
        return f"no worse than {name}, whose test perplexity of {winner.value} is lowest"
    words = f"{name} has the lowest test perplexity ({winner.value}){_level(winner)}"
    if quick in (None, name) or pd.isna(loss := at.loc[quick, "test_perplexity"]):
        return words
    change = loss / at.loc[name, "test_perplexity"] - 1
    return f"{words}; the fastest layer's is {change:.1%} higher"


def _level(winner: Winner) -> str:
    return f", level with {winner.level}" if winner.level else ""


def _unsettled(results: Results, size: int) -> str | None:
    """A sentence that more training may change the ranking; None if all layers have converged."""
    prices = price_table(results)
    prices = prices[prices["vocab_size"] == size]
    if prices["perplexity_at_convergence"].notna().all():
        return None
    gain = prices["last_gain"].max()
    would = (
        "" if pd.isna(gain) else f": twice the tokens would lower perplexity by up to {gain:.0%}"
    )
    tokens = f"{prices['equal_tokens'].min():,.0f} tokens"
    return f"Training has not converged after {tokens}{would}, and the order may change."


def _listed(names: list[str]) -> str:
    if len(names) > 3:
        return f"{', '.join(names[:2])} and {len(names) - 2} others"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _number(value: float) -> str:
    return number_text(value, 3 if value < 100 else 4)
