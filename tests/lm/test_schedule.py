"""Learning rates in the course of training, and training to convergence."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from softmax_bench.lm import (
    SCHEDULES,
    Checkpoint,
    Optimizer,
    Progress,
    Quality,
    Schedule,
    TrainingState,
    make_optimizer,
    run_steps,
)


def history_of(*nats: float) -> list[Progress]:
    return [
        Progress(place + 1, 1.0, 1.0, Quality(10, value), 0.1) for place, value in enumerate(nats)
    ]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_it_starts_with_the_whole_rate_and_never_rises(kind: str) -> None:
    schedule = Schedule(kind)
    history = history_of(3.0, 2.0, 2.0, 1.0, 4.0)
    rates = [schedule.rate(tokens, 100, 10, history[: tokens // 20]) for tokens in range(100)]
    assert rates[0] == 1
    assert rates == sorted(rates, reverse=True)
    assert (rates[-1] < 0.02) == (kind in ("linear", "cosine", "epoch"))


def test_what_each_does() -> None:
    assert Schedule("linear").rate(25, 100, 10, []) == 0.75
    assert Schedule("cosine").rate(25, 100, 10, []) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    stall = Schedule("stall", decay=0.25)
    assert stall.rate(0, 9, 9, history_of(3.0, 2.0)) == 1
    assert stall.rate(0, 9, 9, history_of(3.0, 2.0, 2.5, 2.1, 1.0)) == 0.25**2
    # Zaremba et al. 2014: four epochs at the whole rate, from the fifth on half of the one before.
    epoch = Schedule("epoch")
    rates = [epoch.rate(10 * passes + 9, 130, 10, []) for passes in range(7)]
    assert rates == [1, 1, 1, 1, 0.5, 0.25, 0.125]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_warm_up_rises_to_the_schedule_and_takes_a_tenth_of_the_budget_at_most(kind: str) -> None:
    plain, warm = Schedule(kind), Schedule(kind, warmup=4)
    for tokens in range(100):
        share = min(1.0, tokens / 4)
        assert warm.rate(tokens, 100, 10, []) == share * plain.rate(tokens, 100, 10, [])
    long = Schedule(kind, warmup=10**9)
    assert long.rate(5, 100, 1000, []) == 0.5 * plain.rate(5, 100, 1000, [])
    assert long.rate(10, 100, 1000, []) == plain.rate(10, 100, 1000, [])


def test_training_ends_when_it_has_converged() -> None:
    patient = Schedule(patience=2)
    assert not patient.ends([])
    assert not patient.ends(history_of(3.0, 2.0, 2.5))
    assert patient.ends(history_of(3.0, 2.0, 2.5, 2.0))
    assert not Schedule().ends(history_of(3.0, *[4.0] * 50))


class Walk(nn.Module):
    """One number that a step of rate 1 raises by 1."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1))


def walk(
    schedule: Schedule, steps: int, bottom: float, checkpoint: Checkpoint | None = None
) -> tuple[float, list[Progress]]:
    """Walk to the right, evaluated after each step by the distance from the bottom of a valley."""
    model = Walk()
    optimizer = make_optimizer("sgd", model.parameters(), 1.0)
    state = TrainingState() if checkpoint is None else checkpoint.load(model, optimizer)

    def forward() -> tuple[Tensor, None]:
        return -model.place.sum(), None

    def quality() -> Quality:
        return Quality(1, abs(float(model.place.detach()) - bottom))

    history = run_steps(
        model, optimizer, state, lambda: ((), 1), forward, quality, max_tokens=steps,
        epoch_tokens=1, clip_norm=9.0, evaluations=steps, schedule=schedule,
        on_step=lambda tokens: None, on_evaluation=lambda point: None, checkpoint=checkpoint,
    )  # fmt: skip
    return float(model.place.detach()), history


def test_steps_follow_the_schedule() -> None:
    assert walk(Schedule("linear"), 4, 9.0)[0] == pytest.approx(1 + 0.75 + 0.5 + 0.25)
    # 1, 2, 3: no better than 2 was; 3.5, 3.75 ...
    assert walk(Schedule("stall"), 5, 2.5)[0] == pytest.approx(3 + 0.5 + 0.25)


def test_the_best_model_is_kept_where_training_may_end_early() -> None:
    place, history = walk(Schedule(patience=3), 20, 5.0)
    assert place == 5
    assert [point.tokens for point in history] == list(range(1, 9))
    assert walk(Schedule(), 20, 5.0)[0] == 20


def test_the_best_model_outlives_an_interruption(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    class Once(Checkpoint):
        def due(self) -> bool:
            return True

        def save(self, model: nn.Module, optimizer: Optimizer, state: TrainingState) -> None:
            super().save(model, optimizer, state)
            if state.tokens == 6:
                raise KilledError

    path = tmp_path / "walk.safetensors"
    with pytest.raises(KilledError):
        walk(Schedule(patience=3), 20, 5.0, Once(path, {}))
    place, history = walk(Schedule(patience=3), 20, 5.0, Checkpoint(path, {}))
    assert (place, len(history)) == (5, 8)
    assert np.isclose(history[4].valid.nats, 0)
