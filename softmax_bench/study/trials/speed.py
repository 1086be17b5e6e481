"""Speed trials, which time layers against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from softmax_bench.layers import create_layer
from softmax_bench.measure import (
    LayerInference,
    LayerStep,
    Machine,
    Phases,
    draw_targets,
    interleave,
    measure_machine,
    watch_machine,
    zipf_counts,
)
from softmax_bench.records.record import SpeedRecord
from softmax_bench.records.result import Disturbance, SpeedResult, Timing
from softmax_bench.records.trial import SpeedTrial, trial_id
from softmax_bench.study.trials.setting import describe_machine, now

INFERENCE_SHARE = 0.25
"""Share of the timing budget for evaluation and decoding, after the training steps."""


def speed_trials(
    trials: Sequence[SpeedTrial],
    *,
    budget_seconds: float,
    class_counts: npt.NDArray[np.int64] | None = None,
    on_round: Callable[[float], None] = lambda share: None,
    on_turn: Callable[[SpeedTrial], None] = lambda trial: None,
) -> list[SpeedRecord]:
    """Time layers against each other, alternating step by step.

    Args:
        trials: Layers to time together, usually of one vocabulary size.
        budget_seconds: Seconds for all of them together.
        class_counts: Counts for creating layers and drawing targets; Zipf's law by default.
        on_round: Called after each round with the share of the budget that is spent.
        on_turn: Called with the next layer, outside the timed region.
    """
    started = now()
    torch.set_num_threads(trials[0].threads)
    machine = measure_machine(torch.device(trials[0].device), getattr(torch, trials[0].dtype))
    steps: dict[str, LayerStep] = {}
    for trial in trials:
        on_turn(trial)
        steps[trial_id(trial)] = _layer_step(trial, class_counts)

    def taking_turns(
        candidates: Sequence[Callable[[], Phases]],
    ) -> dict[str, Callable[[], Phases]]:
        def announced(trial: SpeedTrial, run: Callable[[], Phases]) -> Phases:
            on_turn(trial)
            return run()

        return {
            trial_id(trial): partial(announced, trial, run)
            for trial, run in zip(trials, candidates, strict=True)
        }

    training = 1 - INFERENCE_SHARE
    with watch_machine() as disturbance:
        intervals = interleave(
            taking_turns(list(steps.values())),
            budget_seconds=training * budget_seconds,
            on_round=lambda share: on_round(training * share),
        )
        inference = interleave(
            taking_turns([LayerInference(step) for step in steps.values()]),
            budget_seconds=INFERENCE_SHARE * budget_seconds,
            min_repetitions=3,
            on_round=lambda share: on_round(training + INFERENCE_SHARE * share),
        )
    records = []
    for name, trial in zip(steps, trials, strict=True):
        on_turn(trial)
        phases = intervals[name] | {
            phase: interval for phase, interval in inference[name].items() if phase != "step"
        }
        result = _speed_result(steps[name], trial, phases, machine, disturbance[0])
        records.append(
            SpeedRecord(
                id=name, started=started, trial=trial, environment=describe_machine(), result=result
            )
        )
    return records


def _layer_step(trial: SpeedTrial, class_counts: npt.NDArray[np.int64] | None) -> LayerStep:
    torch.manual_seed(trial.seed)
    target = None
    if class_counts is not None:
        target = draw_targets(trial.num_tokens, class_counts, trial.seed)
    layer = create_layer(
        trial.layer,
        trial.hidden_size,
        trial.vocab_size,
        zipf_counts(trial.vocab_size) if class_counts is None else class_counts,
        device=trial.device,
        dtype=getattr(torch, trial.dtype),
        sparse=True,
    )
    assert trial.clip_norm is not None
    return LayerStep(
        layer,
        trial.num_tokens,
        optimizer=trial.optimizer,
        clip_norm=trial.clip_norm,
        seed=trial.seed,
        target=target,
        encoder=trial.encoder,
        embedding_size=trial.embedding_size,
        num_layers=trial.num_layers,
        bptt=trial.bptt,
    )


def _speed_result(
    step: LayerStep,
    trial: SpeedTrial,
    phases: dict[str, Timing],
    machine: Machine,
    disturbance: Disturbance,
) -> SpeedResult:
    cost = step.layer.cost(trial.num_tokens)
    memory = step.memory()
    return SpeedResult(
        phases=phases,
        peak_bytes=memory.peak,
        parameters=cost.parameters,
        rows_touched=cost.rows_touched,
        flops=cost.flops,
        bytes=cost.bytes,
        memory=memory,
        machine_flops=machine.flops,
        machine_bytes=machine.bytes,
        machine_products=machine.products,
        disturbance=disturbance,
    )
