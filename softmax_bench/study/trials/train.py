"""Training trials, in which a language model is trained and exactly evaluated."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from softmax_bench.corpora import Corpus
from softmax_bench.layers import OutputLayer, create_layer, parse_spec
from softmax_bench.lm import (
    Checkpoint,
    LanguageModel,
    Optimizer,
    Progress,
    Quality,
    Schedule,
    Streams,
    code_version,
    make_optimizer,
    make_streams,
    start_uniformly,
    train,
)
from softmax_bench.lm.checkpoint import SECONDS_BETWEEN
from softmax_bench.lm.evaluate import evaluate
from softmax_bench.measure import watch_machine
from softmax_bench.records.record import TrainRecord
from softmax_bench.records.result import CurvePoint, Disturbance, Evaluation, TrainResult
from softmax_bench.records.trial import TrainTrial, trial_id, tuned_spec
from softmax_bench.study.trials.evaluation import evaluation_of_part, evaluation_of_split
from softmax_bench.study.trials.part import affordable_tokens
from softmax_bench.study.trials.setting import describe_machine, now

EVALUATION_BATCH = 20
"""Streams side by side in evaluation; each except the first starts without its context."""
EVALUATION_WINDOW = 50
"""Time steps evaluated at once, which does not influence the result."""


@dataclass(frozen=True)
class Final:
    """The last evaluations of a model."""

    valid: Evaluation
    test: Evaluation | None = None
    train_perplexity: float | None = None


def train_trial(
    trial: TrainTrial,
    corpus: Corpus,
    *,
    on_step: Callable[[int], None] = lambda tokens: None,
    on_evaluation: Callable[[Progress], None] = lambda progress: None,
    checkpoint: Checkpoint | None = None,
) -> TrainRecord:
    """Train one language model and evaluate it exactly.

    Args:
        trial: What to train.
        corpus: The text that the trial names.
        on_step: Called after each step with the number of tokens it predicted, and before the
            first with those predicted before the checkpoint.
        on_evaluation: Called after each evaluation on the validation text.
        checkpoint: From :func:`make_checkpoint`. Interrupted training resumes from it, with the
            same result as uninterrupted training. Its file still exists at the end; remove it once
            the record is stored.

    Raises:
        SoftmaxBenchError: The trial is invalid, or the checkpoint cannot be written.
        DivergedError: Training diverged to NaN or infinity.
    """
    started = now()
    with watch_machine() as watched:
        model, history = train_model(
            trial, corpus, on_step=on_step, on_evaluation=on_evaluation, checkpoint=checkpoint
        )
    return train_record(
        trial,
        started,
        history,
        checkpoint,
        model,
        model.layer,
        disturbance=watched[0],
        evaluate_finally=lambda: _final(trial, corpus, model, history[-1].tokens),
    )


def _final(trial: TrainTrial, corpus: Corpus, model: LanguageModel, trained: int) -> Final:
    """The last evaluations; after tuning, only on a part of the validation text."""
    device = torch.device(trial.device)

    def quality(text: Streams, counts: Tensor | None = None) -> Quality:
        return evaluate(model, text.to(device), EVALUATION_WINDOW, counts)

    affordable = affordable_tokens(trial, size_of(model.encoder))
    valid = make_streams(corpus.valid, EVALUATION_BATCH, corpus.eos_id)
    if trial.tuning:
        return Final(valid=evaluation_of_part(quality(valid.part(affordable))))
    test = make_streams(corpus.test, EVALUATION_BATCH, corpus.eos_id)
    trained_part = make_streams(corpus.train, trial.batch_size, corpus.eos_id)
    trained_part = trained_part.part(min(trained, len(corpus.test), affordable))
    counts = torch.from_numpy(corpus.class_counts).to(device)
    return Final(
        valid=evaluation_of_split(quality(valid), corpus, "valid"),
        test=evaluation_of_split(quality(test, counts), corpus, "test"),
        train_perplexity=quality(trained_part).perplexity,
    )


def train_record(
    trial: TrainTrial,
    started: str,
    history: Sequence[Progress],
    checkpoint: Checkpoint | None,
    model: nn.Module,
    layer: nn.Module,
    *,
    disturbance: Disturbance,
    evaluate_finally: Callable[[], Final],
) -> TrainRecord:
    """The record of a trained model and of its output layer."""
    last = history[-1]
    began = time.perf_counter()
    final = evaluate_finally()
    final_seconds = time.perf_counter() - began
    return TrainRecord(
        id=trial_id(trial),
        started=started,
        trial=trial,
        environment=describe_machine(),
        result=TrainResult(
            train_tokens=last.tokens,
            train_seconds=last.seconds,
            resumed=0 if checkpoint is None else checkpoint.resumed,
            parameters=size_of(model),
            layer_parameters=size_of(layer),
            curve=[
                CurvePoint(
                    tokens=point.tokens,
                    seconds=point.seconds,
                    train_loss=point.train_loss,
                    valid_perplexity=point.valid.perplexity,
                )
                for point in history
            ],
            curve_tokens=last.valid.tokens,
            curve_seconds=sum(point.evaluation_seconds for point in history),
            valid=final.valid,
            test=final.test,
            train_perplexity=final.train_perplexity,
            final_seconds=final_seconds,
            disturbance=disturbance,
        ),
    )


def make_checkpoint(trial: TrainTrial, path: Path, every: float = SECONDS_BETWEEN) -> Checkpoint:
    """The checkpoint of a trial in a file, written ``every`` so many seconds.

    Training does not resume from a checkpoint of another trial or of other code.
    """
    layer, _ = parse_spec(trial.layer)
    identity = {"trial": trial_id(trial), "version of the code": code_version(layer)}
    return Checkpoint(path, identity, every=every)


def train_model(
    trial: TrainTrial,
    corpus: Corpus,
    *,
    on_step: Callable[[int], None] = lambda tokens: None,
    on_evaluation: Callable[[Progress], None] = lambda progress: None,
    checkpoint: Checkpoint | None = None,
) -> tuple[LanguageModel, list[Progress]]:
    """Train the model of the trial, and return it with the course of its training."""
    torch.set_num_threads(trial.threads)
    torch.manual_seed(trial.seed)
    device, dtype = torch.device(trial.device), getattr(torch, trial.dtype)
    spec = tuned_spec(trial.layer, trial.tuned)
    layer = create_layer(
        spec, trial.hidden_size, corpus.vocab_size, corpus.class_counts, sparse=True
    )
    model = LanguageModel(
        layer,
        encoder=trial.encoder,
        embedding_size=trial.embedding_size,
        num_layers=trial.num_layers,
        dropout=trial.dropout,
        tied=trial.tied,
    )
    if trial.init_range is not None:
        start_uniformly(model, trial.init_range)
    model.to(device, dtype)
    optimizer = trial_optimizer(trial, model, model.layer)
    valid = make_streams(corpus.valid, EVALUATION_BATCH, corpus.eos_id)
    affordable = affordable_tokens(trial, size_of(model.encoder))
    history = train(
        model,
        optimizer,
        make_streams(corpus.train, trial.batch_size, corpus.eos_id).to(device),
        valid.part(affordable // trial.evaluations).to(device),
        window=trial.bptt,
        valid_window=EVALUATION_WINDOW,
        max_tokens=trial.max_tokens,
        clip_norm=trial.clip_norm,
        evaluations=trial.evaluations,
        schedule=trial_schedule(trial),
        on_step=on_step,
        on_evaluation=on_evaluation,
        checkpoint=checkpoint,
    )
    return model, history


def trial_optimizer(
    trial: TrainTrial, model: LanguageModel | OutputLayer, layer: OutputLayer
) -> Optimizer:
    """The optimiser that the trial names, for a model with this output layer."""
    return make_optimizer(
        trial.optimizer,
        model.parameters(),
        trial.learning_rate,
        initial_accumulator_value=trial.initial_accumulator_value,
        layer=layer.parameters(),
        layer_rate=trial.layer_rate,
    )


def trial_schedule(trial: TrainTrial) -> Schedule:
    """The trial's learning rate schedule."""
    return Schedule(
        trial.schedule,
        decay=trial.decay,
        decay_after=trial.decay_after,
        patience=trial.patience,
        warmup=trial.warmup_tokens,
    )


def size_of(module: nn.Module) -> int:
    """Number of a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
