"""What layers cost in perplexity, by the studies this package stands behind.

``penalties.json`` lies beside this file, so that it is there where the studies' records are not;
``python -m benchmarks.penalties`` makes it from them.
"""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files

import msgspec
import pandas as pd

from softmax_bench.records.frames import Results
from softmax_bench.report.tables.selection import best_trials
from softmax_bench.report.tables.summary import summary_table

NEAR = 3.0
"""Vocabularies whose sizes differ by a larger factor are another task."""


class Penalty(msgspec.Struct, frozen=True, kw_only=True):
    """Test perplexity of a layer over that of full softmax, all else equal."""

    layer: str
    vocab_size: int
    ratio: float
    seeds: int
    corpus: str
    encoder: str
    hidden_size: int
    train_tokens: int
    origin: str
    """Folder of the records, in this project's repository."""

    @property
    def change(self) -> float:
        """The ratio as a change: 0.1 for ten per cent more."""
        return self.ratio - 1

    @property
    def chance(self) -> float:
        """Changes up to this are no finding: other seeds differ by as much."""
        return 0.05 if self.seeds == 1 else 0.02

    def is_near(self, vocab_size: int) -> bool:
        """Whether the study's vocabulary is like one of this size."""
        return abs(math.log(self.vocab_size / vocab_size)) <= math.log(NEAR)

    def __str__(self) -> str:
        """Where the figure comes from, in words."""
        return (
            f"{self.corpus}, V = {self.vocab_size:,}, {self.encoder} of {self.hidden_size}, "
            f"{self.train_tokens / 1e6:.3g} million tokens, {self.seeds} seed(s): {self.origin}"
        )


def penalties_of(results: Results, origin: str) -> list[Penalty]:
    """Every layer of a study, at every vocabulary size at which full softmax was trained too."""
    best = best_trials(results)
    if best.empty:
        return []
    table = summary_table(results).dropna(subset="test_perplexity")
    full = table[table["layer"] == "full"].set_index("vocab_size")["test_perplexity"]
    one_each = best.groupby(["vocab_size", "layer"]).first()
    found = []
    for row in table[table["vocab_size"].isin(full.index)].to_dict("records"):
        trial: pd.Series[object] = one_each.loc[(row["vocab_size"], row["layer"])]
        found.append(
            Penalty(
                layer=row["layer"],
                vocab_size=row["vocab_size"],
                ratio=round(float(row["test_perplexity"] / full[row["vocab_size"]]), 4),
                seeds=int(row["seeds"]),
                corpus=str(trial["corpus"]),
                encoder=str(trial["encoder"]),
                hidden_size=int(trial["hidden_size"]),
                train_tokens=int(row["train_tokens"]),
                origin=origin,
            )
        )
    return found


@cache
def stored_penalties() -> list[Penalty]:
    """Those that come with the package."""
    text = files("softmax_bench.advise").joinpath("penalties.json").read_bytes()
    return msgspec.json.decode(text, type=list[Penalty])


def expected_penalty(spec: str, vocab_size: int) -> Penalty | None:
    """That of the study whose vocabulary is nearest in proportion; None where there is none."""
    known = [penalty for penalty in stored_penalties() if penalty.layer == spec]
    if not known:
        return None
    return min(known, key=lambda p: abs(math.log(p.vocab_size / vocab_size)))
