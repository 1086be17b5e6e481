"""What layers cost in perplexity, by the studies in this repository.

``python -m benchmarks.penalties`` makes ``penalties.json`` from the studies' records. It is stored
beside this file, so that installations without the records have it too.
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
"""Findings do not carry over to vocabularies whose size differs by a larger factor."""
CHANCE = 0.02
"""Smaller changes are not significant: most layers' seeds differ by up to 0.015 (results/books)."""


class Penalty(msgspec.Struct, frozen=True, kw_only=True):
    """Ratio of a layer's test perplexity to that of full softmax, all else equal."""

    layer: str
    vocab_size: int
    ratio: float
    seeds: int
    corpus: str
    encoder: str
    hidden_size: int
    train_tokens: int
    origin: str
    """Folder of the records in this repository."""

    @property
    def change(self) -> float:
        """The ratio as a change: 0.1 for ten per cent more."""
        return self.ratio - 1

    def is_near(self, vocab_size: int) -> bool:
        """Whether the study's vocabulary is of a similar size."""
        return abs(math.log(self.vocab_size / vocab_size)) <= math.log(NEAR)

    def __str__(self) -> str:
        """The source of the figure, in words."""
        seeds = "one seed" if self.seeds == 1 else f"{self.seeds} seeds"
        return (
            f"{self.corpus}, V = {self.vocab_size:,}, {self.encoder} of {self.hidden_size}, "
            f"{self.train_tokens / 1e6:.3g} million tokens, {seeds}: {self.origin}"
        )


def penalties_of(results: Results, origin: str) -> list[Penalty]:
    """Penalties of a study's layers at every vocabulary size that full softmax was trained at."""
    best = best_trials(results)
    if best.empty:
        return []
    table = summary_table(results)
    table = table.dropna(subset="over_full") if "over_full" in table else table[:0]
    one_each = best.groupby(["vocab_size", "layer"]).first()
    penalties = []
    for row in table.to_dict("records"):
        trial: pd.Series[object] = one_each.loc[(row["vocab_size"], row["layer"])]
        penalties.append(
            Penalty(
                layer=row["layer"],
                vocab_size=row["vocab_size"],
                ratio=round(row["over_full"], 4),
                seeds=int(row["seeds"]),
                corpus=str(trial["corpus"]),
                encoder=str(trial["encoder"]),
                hidden_size=int(trial["hidden_size"]),
                train_tokens=int(row["train_tokens"]),
                origin=origin,
            )
        )
    return penalties


@cache
def stored_penalties() -> list[Penalty]:
    """The penalties that ship with the package."""
    text = files("softmax_bench.advise").joinpath("penalties.json").read_bytes()
    return msgspec.json.decode(text, type=list[Penalty])


def expected_penalty(spec: str, vocab_size: int) -> Penalty | None:
    """The penalty from the study that answers best for V classes; None if there is none.

    Of the studies near in V, it is that with the longest training, because layers differ the more,
    the longer they are trained (results/wikitext). Lengths of about the same power of two count as
    equal; then the nearest V decides, then the number of seeds. If none is near, it is the nearest.
    """

    def order(penalty: Penalty) -> tuple[bool, float, float, int]:
        distance = abs(math.log(penalty.vocab_size / vocab_size))
        near = penalty.is_near(vocab_size)
        length = round(math.log2(penalty.train_tokens)) if near else 0
        return not near, -length, distance, -penalty.seeds

    return min((one for one in stored_penalties() if one.layer == spec), key=order, default=None)
