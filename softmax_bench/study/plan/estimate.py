"""Time and memory of a plan's steps, estimated from the layers' own costs.

Seconds are those of the products and bytes of training and evaluation at the machine's full rate,
times a factor: how much longer the finished steps have taken, or :data:`USUAL_SLOWDOWN` if there
are none. Bytes are those of the process, text, parameters, tables, gradients, optimiser and
activations. Both are usually within a factor of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

import psutil
import torch

from softmax_bench.layers import Cost, OutputLayer, create_layer, parse_spec
from softmax_bench.lm import make_encoder
from softmax_bench.measure import Machine, zipf_counts
from softmax_bench.measure.memory import OPTIMIZER_STATES
from softmax_bench.ops.cpu.softmax_loss import token_blocks
from softmax_bench.records.record import TrainRecord
from softmax_bench.records.trial import GIVEN, SpeedTrial, TrainTrial
from softmax_bench.study.jobs.job import FidelityJob, Job, NgramJob, SpeedJob, Text, TrainJob
from softmax_bench.study.plan.plan import Done, State, Step, ids_of
from softmax_bench.study.plan.time_left import TIMING_OVERHEAD
from softmax_bench.study.texts import TextSummary
from softmax_bench.study.trials.part import affordable_tokens

USUAL_SLOWDOWN = 1.5
"""Slowdown of training relative to the full rate, on Penn Treebank."""
_LARGE = 200_000
"""Classes beyond which bytes are taken to grow with V: trees of millions take minutes to build."""
_STARTUP_SECONDS = 3.0
_PROCESS_BYTES = 350e6
"""Bytes of Python with torch, which every process loads."""
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
    table_bytes: float
    """Of what it holds besides: noise distributions, trees."""
    activation_bytes: float
    """Of the scores that a step holds at once."""


class Estimator:
    """Estimates steps for a machine.

    Args:
        machine: The machine's rates, measured with the threads of a trial.
        texts: The study's texts.
        steps: All steps, including the finished ones that it learns from.
        done: The results of the finished steps.
    """

    def __init__(
        self, machine: Machine, texts: Iterable[TextSummary], steps: Iterable[Step], done: Done
    ) -> None:
        self._machine = machine
        self._texts: dict[Text, TextSummary] = {text.source: text for text in texts}
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
        text = None if job.text is None else self._texts.get(job.text)
        return Estimate(self._seconds(job, text), memory_of(job, text))

    def _seconds(self, job: Job, text: TextSummary | None) -> float:
        if isinstance(job, SpeedJob):
            return _STARTUP_SECONDS + TIMING_OVERHEAD * job.budget_seconds
        assert text is not None
        if isinstance(job, NgramJob):
            counted = job.trial.max_tokens or text.train_tokens
            return _STARTUP_SECONDS + _NGRAM_SECONDS_PER_TOKEN * counted
        assert not isinstance(job, FidelityJob)
        trial = job.trial
        layer = _describe(trial.layer, trial.hidden_size, trial.vocab_size, _targets(trial))
        encoder = _encoder_parameters(trial)
        evaluated = self._evaluated(trial, text, encoder)
        evaluation = evaluated * (layer.evaluation_flops + 2.0 * encoder) / self._machine.flops
        return _STARTUP_SECONDS + self.slowdown * (self._training_seconds(trial) + evaluation)

    def _evaluated(self, trial: TrainTrial, text: TextSummary, encoder: int) -> int:
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


def memory_of(job: Job, text: TextSummary | None = None) -> float:
    """Bytes that the process of a job takes at its peak, those of the text if it is given."""
    text_tokens = 0 if text is None else text.train_tokens + text.valid_tokens + text.test_tokens
    if isinstance(job, NgramJob):
        counted = 0 if text is None else job.trial.max_tokens or text.train_tokens
        return _PROCESS_BYTES + _NGRAM_BYTES_PER_TOKEN * counted
    if isinstance(job, SpeedJob):  # all layers are held at once
        permanents, temporaries = zip(
            *(_layer_memory(trial, trial.num_tokens) for trial in job.trials), strict=True
        )
        return _PROCESS_BYTES + sum(permanents) + max(temporaries)
    trial = job.trials[0].model if isinstance(job, FidelityJob) else job.trial
    permanent, temporary = _layer_memory(trial, _targets(trial))
    copies = 1 + OPTIMIZER_STATES[trial.optimizer]
    encoder = 4.0 * (copies + 1) * _encoder_parameters(trial)
    vectors = 0 if trial.encoder == GIVEN else trial.embedding_size
    rows = copies * trial.vocab_size + min(trial.vocab_size, _targets(trial))
    states = _targets(trial) * (vectors + 12 * trial.hidden_size)
    model = 4.0 * (text_tokens + rows * vectors + states) + encoder
    return _PROCESS_BYTES + permanent + temporary + model


def memory_mistake(steps: Iterable[Step]) -> str:
    """Which of the steps that are left takes more than this machine has; empty if none does.

    Those with a limit do no harm: they are ended there.
    """
    total = psutil.virtual_memory().total
    for step in _left(steps):
        needed = memory_of(step.job)
        if step.job.limits.bytes is None and needed > total:
            return (
                f"{step.title} takes about {needed / 1e9:,.3g} GB, and this machine has "
                f"{total / 1e9:.3g} GB: choose fewer classes, a smaller hidden_size or fewer "
                "layers to be timed together, or, in a study, set memory_limit to what a machine "
                "has on which trials run"
            )
    return ""


def memory_warnings(steps: Sequence[Step], workers: int) -> Iterator[str]:
    """Of trials that will be ended at their limit, and of too many at once for this machine."""
    needed = [(step, memory_of(step.job)) for step in _left(steps)]
    for step, size in needed:
        limit = step.job.limits.bytes
        if limit is not None and size > limit:
            yield (
                f"{step.title} takes about {size / 1e9:,.3g} GB, and memory_limit is "
                f"{limit / 1e9:.3g} GB"
            )
            break
    training = sorted(size for step, size in needed if isinstance(step.job, TrainJob))
    alone = [size for step, size in needed if not isinstance(step.job, TrainJob)]
    most, free = max([sum(training[-workers:]), *alone]), psutil.virtual_memory().available
    if most > free:
        yield (
            f"up to about {most / 1e9:,.3g} GB are taken at once, and {free / 1e9:.3g} GB are free "
            "now: choose fewer workers, classes or layers"
        )


def _left(steps: Iterable[Step]) -> Iterator[Step]:
    return (step for step in steps if step.state in (State.DUE, State.WAITING))


def _layer_memory(trial: TrainTrial | SpeedTrial, num_tokens: int) -> tuple[float, float]:
    """Bytes that an output layer holds all the time, and those of a step."""
    size = trial.vocab_size if parse_spec(trial.layer)[1] else min(trial.vocab_size, _LARGE)
    layer = _describe(trial.layer, trial.hidden_size, size, num_tokens)
    permanent = (1 + OPTIMIZER_STATES[trial.optimizer]) * layer.parameter_bytes + layer.table_bytes
    scale = trial.vocab_size / size
    return scale * permanent, scale * (layer.cost.gradient_bytes + layer.activation_bytes)


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
    evaluation_flops = cost.flops / 3 / num_tokens if layer.exact else 2.0 * cost.parameters
    scored = cost.flops / (6.0 * layer.in_features * num_tokens)  # classes, by a token
    block = next(token_blocks(num_tokens, round(scored)))
    return _Layer(
        cost,
        evaluation_flops,
        float(sum(parameter.nbytes for parameter in layer.parameters())),
        float(sum(buffer.nbytes for buffer in layer.buffers())),
        4.0 * scored * (block.stop - block.start),
    )


def _encoder_parameters(trial: TrainTrial) -> int:
    if trial.encoder == GIVEN:
        return 0
    with torch.device("meta"):
        encoder = make_encoder(
            trial.encoder,
            trial.embedding_size,
            trial.hidden_size,
            trial.num_layers,
            trial.dropout,
        )
    return sum(parameter.numel() for parameter in encoder.parameters())
