"""From taking turns to the verdict, on a simulated machine, at the default budget."""

from __future__ import annotations

import numpy as np
import pytest

from softmax_bench.measure import interleave
from softmax_bench.report.comparison.verdict import ratio_interval, verdict
from tests.measure.test_interleave import Machine

BUDGET = 60.0 * 0.75
"""Of ``softmax-bench time`` for four layers: what their training steps get of it."""


def weather(seed: int) -> Machine:
    """A machine with fast and slow spells of a few seconds, and a long one that comes once."""
    rng = np.random.default_rng(seed)
    begin, phase, period = rng.uniform(0, 20), rng.uniform(0, 6), rng.uniform(2, 9)

    def slowdown(time: float) -> float:
        spell = 1.0 + 0.15 * np.sin(phase + 2 * np.pi * time / period)
        return float(spell * (1.4 if begin < time < begin + 8 else 1.0))

    return Machine(seed, slowdown)


@pytest.mark.parametrize("seconds", [0.01, 0.1])
def test_equal_steps_are_no_difference_and_five_per_cent_is_one(seconds: float) -> None:
    alarms = missed = 0
    repeats = 15
    for seed in range(repeats):
        machine = weather(seed)
        timed = interleave(
            {
                "A": machine.step(seconds, 0.04),
                "B": machine.step(seconds, 0.04),
                "slowed": machine.step(1.05 * seconds, 0.04),
                "other": machine.step(2 * seconds, 0.02),
            },
            budget_seconds=BUDGET,
            now=machine.now,
        )
        samples = {name: np.array(phases["step"].samples) for name, phases in timed.items()}

        def judge(one: str, other: str, known: dict[str, np.ndarray] = samples) -> str:
            _, low, high = ratio_interval(known[one], known[other], paired=True)
            return verdict(low, high, "faster", "slower")

        alarms += judge("A", "B") != "no difference found"
        missed += judge("slowed", "A") != "A is slower"
    assert alarms <= 1
    assert missed <= 1
