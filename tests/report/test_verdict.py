"""How often verdicts err, on simulated clocks whose noise is known, through all that makes one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from softmax_bench.intervals import Floats
from softmax_bench.report.comparison.verdict import (
    MARGIN,
    SHOWN,
    perplexity_interval,
    ratio_interval,
    verdict,
)
from tests.test_intervals import wander


def judge(a: Floats, b: Floats, *, paired: bool = True) -> str:
    _, low, high = ratio_interval(a, b, paired=paired)
    return verdict(low, high, "faster", "slower", MARGIN)


def machine(rng: np.random.Generator, rounds: int, kind: str) -> tuple[Floats, Floats]:
    """Times of two equal steps that took turns on a machine that is disturbed in some way."""
    own = [np.exp(0.04 * rng.standard_normal(rounds)) for _ in "AB"]
    if kind == "wanders":
        common = np.exp(0.15 * wander(rng, rounds, 0.95))
    elif kind == "slows down":
        common = np.linspace(1.0, 1.6, rounds)
    elif kind == "slower for a while":
        common = np.where(np.arange(rounds) < rng.integers(rounds), 1.0, 1.5)
    elif kind == "own moods":  # each step has slow and fast spells of its own
        common = np.ones(rounds)
        own = [np.exp(0.04 * wander(rng, rounds, 0.7)) for _ in "AB"]
    elif kind == "interrupted":
        common = np.ones(rounds)
        own = [x * np.where(rng.random(rounds) < 0.1, 2.0, 1.0) for x in own]
    else:
        common = np.ones(rounds)
    return common * own[0], common * own[1]


KINDS = ["quiet", "wanders", "slows down", "slower for a while", "interrupted"]


@pytest.mark.parametrize(
    ("kind", "rounds"),
    [*((kind, rounds) for kind in KINDS for rounds in (20, 100)), ("own moods", 100)],
)
def test_a_layer_against_itself_is_no_difference(kind: str, rounds: int) -> None:
    rng = np.random.default_rng(0)
    verdicts = [judge(*machine(rng, rounds, kind)) for _ in range(100)]
    assert np.mean([found == "no difference found" for found in verdicts]) >= 0.95


@pytest.mark.parametrize(("kind", "rounds"), [*((kind, 100) for kind in KINDS), ("own moods", 200)])
def test_a_layer_slower_by_five_per_cent_is_found_out(kind: str, rounds: int) -> None:
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(100):
        a, b = machine(rng, rounds, kind)
        verdicts.append(judge(1.05 * a, b))
    assert np.mean([found == "A is slower" for found in verdicts]) >= 0.95


def test_without_turns_drift_is_a_difference_and_intervals_say_how_unsure() -> None:
    """Not paired, a wandering machine's own autocorrelation must hold the verdict back."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        a, b = (np.exp(0.05 * wander(rng, 150, 0.8)) for _ in "AB")
        wrong += judge(a, b, paired=False) != "no difference found"
    assert wrong / 200 <= 0.10


def test_the_ratio_lies_in_its_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = machine(rng, 40, "interrupted")
    for paired in (True, False):
        ratio, low, high = ratio_interval(1.3 * a, b, paired=paired)
        assert low <= ratio <= high
        assert low < 1.3 < high
    assert np.isnan(ratio_interval(None, b, paired=True)).all()


def models(
    rng: np.random.Generator, level: float, seeds: int, spread: float, text: Floats
) -> pd.DataFrame:
    rows = [
        text + level + spread * rng.standard_normal() + 0.05 * rng.standard_normal(len(text))
        for _ in range(seeds)
    ]
    return pd.DataFrame(
        {"corpus_sha256": "x", "test_tokens": float(len(text)), "test_block_nats": rows}
    )


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.02)])
def test_equal_perplexities_are_no_difference(seeds: int, spread: float) -> None:
    """Some stretches of the text are harder than others by far more than models differ."""
    rng = np.random.default_rng(0)
    right = found = 0
    for _ in range(100):
        text = 5 + 0.5 * rng.standard_normal(200)
        a = models(rng, 0.0, seeds, spread, text)
        b = models(rng, 0.0, seeds, spread, text)
        low, high = perplexity_interval(a, b)
        right += low <= 1 <= high
        better = models(rng, -0.1, seeds, spread, text)
        found += verdict(*perplexity_interval(better, b), "better", "worse") == "A is better"
    assert right >= 88
    assert found >= 85


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    text = np.full(200, 5.0)
    one, three = (models(rng, 0.0, seeds, 0.1, text) for seeds in (1, 3))
    narrow = np.subtract(*perplexity_interval(one, one.copy())[::-1])
    low, high = perplexity_interval(three, models(rng, 0.0, 3, 0.1, text))
    assert high - low > narrow + 0.1


@pytest.mark.parametrize(
    ("low", "high", "margin", "said"),
    [
        (0.984, 0.997, SHOWN, "A is better"),  # -1.6 to -0.3 %: small, and sure
        (0.99951, 0.99999, SHOWN, "no difference found"),  # which is shown as 0.0 %
        (0.984, 0.997, MARGIN, "no difference found"),
        (0.984, 1.001, 0.0, "no difference found"),
        (1.003, 1.004, SHOWN, "A is worse"),
        (np.nan, np.nan, 0.0, ""),
    ],
)
def test_only_times_have_a_margin(low: float, high: float, margin: float, said: str) -> None:
    assert verdict(low, high, "better", "worse", margin) == said
