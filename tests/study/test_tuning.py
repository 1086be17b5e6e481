"""Tuning finds what is known to be the best, under an equal budget, and goes on from any point."""

from __future__ import annotations

import math

import msgspec
import pytest

from softmax_bench.records.frames import frames
from softmax_bench.records.record import TrainRecord
from softmax_bench.records.trial import TrainTrial, trial_id
from softmax_bench.report.tables.tuning import tuning_table
from softmax_bench.study.jobs.job import TrainJob
from softmax_bench.study.plan.grid import plan_study, plan_tuning
from softmax_bench.study.plan.plan import Plan, State
from softmax_bench.study.study import Study
from tests.records import train_record
from tests.study.test_session import TEXT, study_of

BEST_RATE, BEST_POWER = 0.04, 0.7
TRIALS = 14


def perplexity(trial: TrainTrial) -> float:
    """A bowl around the best rate, and for what has a power around the best of that."""
    power = float(trial.tuned.partition("power=")[2] or BEST_POWER)
    distance = math.log(trial.learning_rate / BEST_RATE) ** 2 + 9 * (power - BEST_POWER) ** 2
    return 20.0 * math.exp(0.2 * distance)


def train_all(plan: Plan, done: dict[str, TrainRecord], failed: set[str]) -> list[TrainTrial]:
    """Train whatever is due, by the formula, in the order of the plan; no rate above 0.8 goes."""
    trained: list[TrainTrial] = []
    while True:
        due = [
            step.job.trial
            for step in plan(done, failed)
            if step.state is State.DUE and isinstance(step.job, TrainJob)
        ]
        if not due:
            return trained
        for trial in due:
            trained.append(trial)
            if trial.learning_rate > 0.8:
                failed.add(trial_id(trial))
                continue
            record = train_record(trial.layer, trial.vocab_size, perplexity(trial))
            done[trial_id(trial)] = msgspec.structs.replace(record, id=trial_id(trial), trial=trial)


def study(**changes: object) -> Study:
    return study_of(tuning_trials=TRIALS, tune_tokens=50, max_tokens=[200], **changes)


def test_it_finds_the_best_under_an_equal_budget() -> None:
    done: dict[str, TrainRecord] = {}
    trained = train_all(plan_study(study(), [TEXT]), done, set())
    for layer in ("full", "nce"):
        tried = [t for t in trained if t.layer == layer and t.max_tokens == 50]
        assert len(tried) == TRIALS
        (final,) = [t for t in trained if t.layer == layer and t.max_tokens == 200]
        level = [t for t in tried if perplexity(t) <= 1.01 * min(map(perplexity, tried))]
        best = min(level, key=lambda trial: trial.learning_rate)
        assert (final.learning_rate, final.tuned) == (best.learning_rate, best.tuned)
        assert perplexity(final) < 22
    assert {t.tuned for t in trained if t.layer == "full"} == {""}
    first = next(t for t in trained if t.layer == "nce")
    assert (first.learning_rate, first.tuned) == (0.1, "power=1"), "the usual values come first"


def test_a_search_that_was_interrupted_goes_on_as_if_it_had_not_been() -> None:
    whole = train_all(plan_tuning(study(), [TEXT]), {}, set())
    assert {trial.max_tokens for trial in whole} == {50}
    done: dict[str, TrainRecord] = {}
    failed: set[str] = set()
    train_all(plan_tuning(study_of(tuning_trials=5, tune_tokens=50), [TEXT]), done, failed)
    train_all(plan_tuning(study(), [TEXT]), done, failed)
    assert {trial_id(trial) for trial in whole} == done.keys() | failed


def test_trials_that_fail_lead_away_from_there() -> None:
    failed: set[str] = set()
    wide = study(learning_rates=[0.01, 100.0], layers=["full"])
    trained = train_all(plan_tuning(wide, [TEXT]), {}, failed)
    assert failed, "the usual value of this range fails"
    assert sum(trial.learning_rate < 0.8 for trial in trained[-6:]) >= 4


def test_what_is_said_or_means_nothing_is_not_tuned() -> None:
    named = study(layers=["nce(power=0.5)", "nce(noise='uniform')", "nce(num_samples=7)"])
    trained = train_all(plan_tuning(named, [TEXT]), {}, set())
    for trial in trained:
        assert ("power=" in trial.tuned) == (trial.layer == "nce(num_samples=7)")


def test_how_sharp_an_optimum_is() -> None:
    done: dict[str, TrainRecord] = {}
    train_all(plan_tuning(study(learning_rates=[0.05, 5.0]), [TEXT]), done, set())
    table = tuning_table(frames(list(done.values()))).set_index("layer")
    full = table.loc["full"]
    assert full["near_low"] == full["learning_rate"] < full["near_high"]
    assert full["bracketed"], "the range grows: the bowl's bottom lies below it"
    assert table.loc["nce", "tuned"].startswith("power=")


@pytest.mark.parametrize(
    ("grid", "best", "beyond"),
    [
        ([0.1, 0.2, 0.4], 0.05, [0.05, 0.025]),
        ([0.005, 0.01], 0.04, [0.02, 0.04, 0.08]),
        ([0.02, 0.04, 0.08], 0.04, []),
        ([0.002, 0.003], 0.0152, [0.0045, 0.00675, 0.0101, 0.0152]),  # no more than so many
    ],
)
def test_a_grid_is_widened_until_the_best_rate_lies_inside(
    grid: list[float], best: float, beyond: list[float]
) -> None:
    chosen = study_of(learning_rates=grid, tune_tokens=50, max_tokens=[200], layers=["full"])
    done: dict[str, TrainRecord] = {}
    *tried, final = train_all(plan_study(chosen, [TEXT]), done, set())
    assert [trial.learning_rate for trial in tried] == [*grid, *beyond]
    assert all(trial.tuning for trial in tried)
    assert (final.learning_rate, final.tuning) == (best, False)
    table = tuning_table(frames(list(done.values())))
    assert table["bracketed"].tolist() == [len(beyond) < 4]


def test_of_rates_that_are_level_the_lowest_is_used() -> None:
    """Here 0.033 is 0.7 % worse than 0.04, and 0.01 far worse."""
    rates = [0.01, 0.033, 0.04, 0.1]
    chosen = study_of(learning_rates=rates, tune_tokens=50, max_tokens=[200], layers=["full"])
    assert train_all(plan_study(chosen, [TEXT]), {}, set())[-1].learning_rate == 0.033


def test_a_rate_at_which_training_fails_bounds_the_grid() -> None:
    chosen = study_of(learning_rates=[0.7, 0.8], tune_tokens=50, max_tokens=[200], layers=["full"])
    wrong = msgspec.structs.replace(chosen, learning_rates=(0.8, 1.6))
    failed: set[str] = set()
    trained = train_all(plan_study(wrong, [TEXT]), {}, failed)
    assert [trial.learning_rate for trial in trained] == [0.8, 1.6, 0.4, 0.2, 0.1, 0.05, 0.05]
    assert len(failed) == 1


def test_without_several_rates_there_is_nothing_to_tell() -> None:
    assert tuning_table(frames([train_record("full", 1000, 100.0)])).empty


def test_a_missing_optuna_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from softmax_bench.errors import SoftmaxBenchError

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SoftmaxBenchError, match=r"softmax-bench\[tune\]"):
        plan_tuning(study(), [TEXT])({}, set())
