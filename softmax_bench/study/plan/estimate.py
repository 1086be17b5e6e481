"""Time and memory of a plan's steps, estimated from the layers' own costs.

Seconds are those of the products and bytes of training and evaluation at the machine's full rate,
times a factor: how much longer the finished steps have taken, or :data:`USUAL_SLOWDOWN` if there
are none. Bytes are those of the process, text, parameters, gradients, optimiser and activations.
Both are usually within a factor of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

import torch

from softmax_bench.layers import Cost, OutputLayer, create_layer
from softmax_bench.lm import make_encoder
from softmax_bench.measure import Machine, zipf_counts
from softmax_bench.measure.memory import OPTIMIZER_STATES
from softmax_bench.records.record import TrainRecord
from softmax_bench.records.trial import SpeedTrial, TrainTrial
from softmax_bench.study.jobs.job import FidelityJob, NgramJob, SpeedJob, Text
from softmax_bench.study.plan.plan import Done, Step, ids_of
from softmax_bench.study.texts import KnownText
from softmax_bench.study.trials.part import affordable_tokens

USUAL_SLOWDOWN = 1.5
"""Slowdown of training relative to the full rate, on Penn Treebank with the records of results/ptb.
"""
_STARTUP_SECONDS = 3.0
_PROCESS_BYTES = 350e6
"""Bytes of Python with torch, which every process loads."""
_TIMING_OVERHEAD = 1.5
_NGRAM_SECONDS_PER_TOKEN = 5e-6
_NGRAM_BYTES_PER_TOKEN = 200
"""Bytes per token at the peak of counting: the process of a 5-gram trial has grown by 181 on Penn
Treebank and by 194 on WikiText-2. Its arrays alone take 164 and 166 there; on the synthetic
language, ``pytest tests/study/test_estimate.py -k counting`` measures them.
"""


@dataclass(frozen=True)
class Estimate:
    """The estimate of one step."""

    seconds: float
    bytes: float


@dataclass(frozen=True)
class _Layer:
    """What is known about a layer without creating its parameters."""

    cost: Cost
    evaluation_flops: float
    """Operations per token."""
    parameter_bytes: float


class Estimator:
    """Estimates steps for a machine.

    Args:
        machine: The machine's rates, measured with the threads of a trial.
        texts: The study's texts.
        steps: All steps, including the finished ones that it learns from.
        done: The results of the finished steps.
    """

    def __init__(
        self, machine: Machine, texts: Iterable[KnownText], steps: Iterable[Step], done: Done
    ) -> None:
        self._machine = machine
        self._texts: dict[Text, KnownText] = {text.source: text for text in texts}
        ratios = [
            record.result.train_seconds / self._training_seconds(record.trial)
            for step in steps
            for identity in ids_of(step)
            if isinstance(record := done.get(identity), TrainRecord)
        ]
        self.learned_from = len(ratios)
        """Number of trials that the factor comes from."""
        self.slowdown = median(ratios) if ratios else USUAL_SLOWDOWN

    def estimate(self, step: Step) -> Estimate:
        """Seconds and bytes of one step."""
        job = step.job
        if isinstance(job, SpeedJob):
            return self._timing(job.trials, job.budget_seconds)
        text = self._texts[job.text]
        if isinstance(job, NgramJob):
            return Estimate(
                _STARTUP_SECONDS + _NGRAM_SECONDS_PER_TOKEN * text.train_tokens,
                _PROCESS_BYTES + _NGRAM_BYTES_PER_TOKEN * text.train_tokens,
            )
        assert not isinstance(job, FidelityJob)
        return self._training(job.trial, text)

    def _training(self, trial: TrainTrial, text: KnownText) -> Estimate:
        layer = _describe(trial.layer, trial.hidden_size, trial.vocab_size, _targets(trial))
        encoder = _encoder_parameters(trial)
        evaluated = self._evaluated(trial, text, encoder)
        evaluation = evaluated * (layer.evaluation_flops + 2.0 * encoder) / self._machine.flops
        embedding = 4.0 * trial.embedding_size * trial.vocab_size
        held = layer.parameter_bytes + 4.0 * encoder + embedding
        targets = _targets(trial)
        gradients = (
            layer.cost.gradient_bytes
            + 4.0 * encoder
            + 4.0 * trial.embedding_size * min(trial.vocab_size, targets)
        )
        states = OPTIMIZER_STATES[trial.optimizer] * held
        activations = 4.0 * targets * (trial.embedding_size + 12 * trial.hidden_size)
        tokens = 4.0 * (text.train_tokens + text.valid_tokens + text.test_tokens)
        return Estimate(
            _STARTUP_SECONDS + self.slowdown * (self._training_seconds(trial) + evaluation),
            _PROCESS_BYTES + tokens + held + gradients + states + activations,
        )

    def _evaluated(self, trial: TrainTrial, text: KnownText, encoder: int) -> int:
        """Number of evaluated tokens; those evaluated several times count as often."""
        part = affordable_tokens(trial, encoder)
        curve = min(part, trial.evaluations * text.valid_tokens)
        if trial.tuning:
            return curve + min(part, text.valid_tokens)
        return curve + text.valid_tokens + text.test_tokens + min(part, text.test_tokens)

    def _training_seconds(self, trial: TrainTrial) -> float:
        """Seconds at full rate."""
        targets = _targets(trial)
        layer = _describe(trial.layer, trial.hidden_size, trial.vocab_size, targets)
        encoder = _encoder_parameters(trial)
        updated = layer.cost.gradient_bytes + 4.0 * encoder
        step = (
            self._machine.least_seconds(layer.cost)
            + 6.0 * targets * encoder / self._machine.flops
            + (3 + 2 * OPTIMIZER_STATES[trial.optimizer]) * updated / self._machine.bytes
        )
        return step * trial.max_tokens / targets

    def _timing(self, trials: Sequence[SpeedTrial], budget_seconds: float) -> Estimate:
        """The process holds all layers at once."""
        held = 0.0
        for trial in trials:
            layer = _describe(trial.layer, trial.hidden_size, trial.vocab_size, trial.num_tokens)
            held += (1 + OPTIMIZER_STATES[trial.optimizer]) * layer.parameter_bytes
            held += layer.cost.gradient_bytes
        return Estimate(_STARTUP_SECONDS + _TIMING_OVERHEAD * budget_seconds, _PROCESS_BYTES + held)


def _targets(trial: TrainTrial) -> int:
    return trial.batch_size * trial.bptt


@cache
def _describe(spec: str, hidden_size: int, vocab_size: int, num_tokens: int) -> _Layer:
    counts = zipf_counts(vocab_size)
    try:
        # Only shapes are created, so a layer of any size costs nothing.
        layer = create_layer(spec, hidden_size, vocab_size, counts, device="meta", sparse=True)
        cost = layer.cost(num_tokens)
    except (NotImplementedError, RuntimeError):  # a foreign layer that reads tables
        layer = create_layer(spec, hidden_size, vocab_size, counts, sparse=True)
        cost = layer.cost(num_tokens)
    return _described(layer, cost, num_tokens)


def _described(layer: OutputLayer, cost: Cost, num_tokens: int) -> _Layer:
    # A third of an exact layer's step is the forward pass; other layers must read all their rows.
    once = cost.flops / 3 / num_tokens if layer.exact else 2.0 * cost.parameters
    return _Layer(cost, once, float(sum(parameter.nbytes for parameter in layer.parameters())))


def _encoder_parameters(trial: TrainTrial) -> int:
    with torch.device("meta"):
        encoder = make_encoder(
            trial.encoder,
            trial.embedding_size,
            trial.hidden_size,
            trial.num_layers,
            trial.dropout,
        )
    return sum(parameter.numel() for parameter in encoder.parameters())
