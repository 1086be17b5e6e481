"""Taking turns, on a simulated machine whose clock and speed are known."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.measure import interleave
from softmax_bench.measure.timing import LONG_RUN, WARMUP_SHARE, Phases


class Machine:
    """Runs steps on a clock of its own; ``slowdown`` gives the machine's slowness at a time."""

    def __init__(self, seed: int = 0, slowdown: Callable[[float], float] = lambda time: 1.0):
        self.time = 0.0
        self._slowdown = slowdown
        self._rng = np.random.default_rng(seed)

    def now(self) -> float:
        return self.time

    def step(self, seconds: float, noise: float = 0.0) -> Callable[[], Phases]:
        def run() -> Phases:
            scatter = 1.0 + noise * self._rng.standard_normal()
            taken = seconds * self._slowdown(self.time) * scatter
            self.time += taken
            return {"step": taken}

        return run


@pytest.mark.parametrize("seed", range(5))
def test_a_quiet_candidate_does_not_leave_a_noisy_one_to_a_slower_machine(seed: int) -> None:
    """Had the quiet one stopped after five rounds, the noisy one would seem half again as slow.

    A per cent or so remains, and the intervals need not overlap: a sudden slowdown makes the
    samples a mixture of two speeds, whose median depends on the noise.
    """
    machine = Machine(seed, lambda time: 1.0 if time < 0.5 else 1.5)
    result = interleave(
        {"quiet": machine.step(0.01, 0.002), "noisy": machine.step(0.01, 0.05)},
        budget_seconds=4.0,
        now=machine.now,
    )
    quiet, noisy = result["quiet"]["step"], result["noisy"]["step"]
    assert quiet.repetitions == noisy.repetitions
    assert quiet.median == pytest.approx(noisy.median, rel=0.05)


def test_a_candidate_too_slow_for_its_share_leaves_the_rest_to_the_others() -> None:
    machine = Machine()
    result = interleave(
        {"slow": machine.step(10.0), "fast": machine.step(0.01, 0.5)},
        budget_seconds=2.0,
        now=machine.now,
    )
    assert result["slow"]["step"].repetitions == 5
    # its second of the two, at 10 ms: alone by then, so that no run of it goes uncounted
    assert 80 <= result["fast"]["step"].repetitions <= 130


def test_what_the_others_left_in_the_caches_is_not_counted() -> None:
    """Each candidate takes three times as long right after another one."""
    machine, last = Machine(), ""

    def step(name: str, seconds: float) -> Callable[[], Phases]:
        run = machine.step(seconds)
        slow = machine.step(3 * seconds)

        def go() -> Phases:
            nonlocal last
            phases = (run if last == name else slow)()
            last = name
            return phases

        return go

    together = interleave(
        {"A": step("A", 0.01), "B": step("B", 0.02)}, budget_seconds=1.0, now=machine.now
    )
    assert together["A"]["step"].median == pytest.approx(0.01)
    assert together["B"]["step"].median == pytest.approx(0.02)


def test_no_long_run_goes_uncounted() -> None:
    runs = {"long": 0, "short": 0}

    def run(name: str, seconds: float) -> Phases:
        runs[name] += 1
        return {"step": seconds}

    interleave(
        {"long": lambda: run("long", 2 * LONG_RUN), "short": lambda: run("short", LONG_RUN / 2)},
        budget_seconds=1e9,
    )
    assert runs["short"] - runs["long"] == 5  # of as many rounds


def test_the_budget_is_kept() -> None:
    machine = Machine()
    steps = {name: machine.step(0.01, 0.5) for name in "ABC"}
    interleave(steps, budget_seconds=1.5, now=machine.now)
    assert 1.4 <= machine.time <= 1.6 + WARMUP_SHARE * 1.5


def test_progress_rises_to_the_whole_budget() -> None:
    machine = Machine()
    shares: list[float] = []
    interleave(
        {"A": machine.step(0.01, 0.5), "B": machine.step(1.0, 0.5)},
        budget_seconds=1.0,
        on_round=shares.append,
        now=machine.now,
    )
    assert shares == sorted(shares)
    assert shares[0] > 0
    assert shares[-1] == pytest.approx(1.0)


def test_no_garbage_is_collected_meanwhile_and_errors_put_that_right() -> None:
    def fails() -> Phases:
        assert not gc.isenabled()
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        interleave({"A": fails}, budget_seconds=1.0)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("candidates", "options", "message"),
    [
        ("", {}, "at least one candidate"),
        ("A", {"budget_seconds": 0.0}, "above 0 seconds"),
        ("A", {"budget_seconds": float("nan")}, "above 0 seconds"),
        ("A", {"min_repetitions": 0}, "1 <= min_repetitions"),
        ("A", {"min_repetitions": 9, "max_repetitions": 8}, "not 9 and 8"),
    ],
)
def test_bad_input_runs_nothing(candidates: str, options: dict[str, float], message: str) -> None:
    machine = Machine()
    steps = {name: machine.step(1.0) for name in candidates}
    with pytest.raises(SoftmaxBenchError, match=message):
        interleave(steps, **({"budget_seconds": 1.0} | options))  # type: ignore[arg-type]
    assert machine.time == 0.0
