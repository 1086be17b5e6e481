"""Output layers trained on hidden states that are given: no encoder, no language model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from softmax_bench.corpora.states import Ids, States
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import OutputLayer, create_layer
from softmax_bench.lm import (
    Checkpoint,
    DivergedError,
    Progress,
    Quality,
    TrainingState,
    clip_grad_norm,
    make_optimizer,
)
from softmax_bench.lm.checkpoint import SECONDS_BETWEEN
from softmax_bench.lm.evaluate import summarise_log_probs
from softmax_bench.study.record import TrainRecord
from softmax_bench.study.result import CurvePoint, Evaluation, FrequencyBand, TrainResult
from softmax_bench.study.run import describe_machine, make_checkpoint, now
from softmax_bench.study.trial import TrainTrial, trial_id, tuned_spec

EVALUATIONS = 6
_AT_ONCE = 1024
"""Examples evaluated together."""
_RANKED = 4096
"""Examples of a split, at most, whose best classes are looked for: that takes far longer than the
probability of the target, with most layers."""


def train_on_states(
    trial: TrainTrial,
    states: States,
    *,
    on_step: Callable[[int], None] = lambda examples: None,
    on_evaluation: Callable[[Progress], None] = lambda progress: None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = SECONDS_BETWEEN,
) -> TrainRecord:
    """Train a layer on the training examples, in an order drawn anew for each pass over them.

    Args:
        trial: What to train; its ``encoder`` is ``"given"``, and a step takes ``batch_size``
            times ``bptt`` examples.
        states: The examples.
        on_step: Called after each step with the number of its examples, and before the first with
            those before the checkpoint.
        on_evaluation: Called after each evaluation on the validation examples.
        checkpoint: As for :func:`softmax_bench.study.run.train_trial`.
        checkpoint_seconds: Time between two checkpoints.

    Raises:
        SoftmaxBenchError: The checkpoint cannot be written.
        DivergedError: Training went to NaN or infinity.
    """
    started = now()
    torch.set_num_threads(trial.threads)
    torch.manual_seed(trial.seed)
    layer = create_layer(
        tuned_spec(trial.layer, trial.tuned), trial.hidden_size, states.vocab_size,
        states.class_counts,
        device=trial.device, dtype=getattr(torch, trial.dtype),
    )  # fmt: skip
    saved = None if checkpoint is None else make_checkpoint(trial, checkpoint, checkpoint_seconds)
    history = _train(layer, trial, states, on_step, on_evaluation, saved)
    last = history[-1]
    valid = states.split("valid")
    return TrainRecord(
        id=trial_id(trial),
        started=started,
        trial=trial,
        environment=describe_machine(),
        result=TrainResult(
            train_tokens=last.tokens,
            train_seconds=last.seconds,
            resumed=0 if saved is None else saved.resumed,
            parameters=sum(p.numel() for p in layer.parameters()),
            layer_parameters=sum(p.numel() for p in layer.parameters()),
            curve=[
                CurvePoint(
                    tokens=point.tokens,
                    seconds=point.seconds,
                    train_loss=point.train_loss,
                    valid_perplexity=point.valid.perplexity,
                )
                for point in history
            ],
            valid=_evaluation(layer, states, valid, last.valid),
            test=_evaluation(layer, states, states.split("test")),
        ),
    )


def _train(
    layer: OutputLayer,
    trial: TrainTrial,
    states: States,
    on_step: Callable[[int], None],
    on_evaluation: Callable[[Progress], None],
    checkpoint: Checkpoint | None,
) -> list[Progress]:
    optimizer = make_optimizer(
        trial.optimizer, layer.parameters(), layer.row_sparse_parameters(), trial.learning_rate
    )
    valid = states.split("valid")
    state = TrainingState() if checkpoint is None else checkpoint.load(layer, optimizer)
    if state.tokens:
        on_step(state.tokens)
    batches = _batches(states.split("train"), trial.batch_size * trial.bptt, trial.seed)
    batches = islice(batches, state.window, None)
    begin = time.perf_counter()
    while state.tokens < trial.max_tokens:
        places = next(batches)
        optimizer.zero_grad()
        hidden, target = _examples(layer, states, places)
        loss = _loss(layer, hidden, target, state.tokens)
        loss.backward()
        clip_grad_norm(layer.parameters(), trial.clip_norm)
        optimizer.step()
        state.losses.append(loss.detach())
        state.tokens += len(places)
        state.window += 1
        on_step(len(places))
        if state.tokens * EVALUATIONS >= trial.max_tokens * (len(state.history) + 1):
            train_loss = float(torch.stack(state.losses).mean())
            state.seconds += time.perf_counter() - begin
            quality = _quality(layer, states, valid)
            if not math.isfinite(quality.perplexity):
                raise DivergedError(
                    f"training diverged after {state.tokens} examples: the validation perplexity "
                    "is infinite; try a lower learning rate"
                )
            state.history.append(Progress(state.tokens, state.seconds, train_loss, quality))
            on_evaluation(state.history[-1])
            state.losses.clear()
            begin = time.perf_counter()
        if checkpoint is not None and checkpoint.due():
            state.seconds += time.perf_counter() - begin
            checkpoint.save(layer, optimizer, state)
            begin = time.perf_counter()
    return state.history


def _loss(layer: OutputLayer, hidden: Tensor, target: Tensor, examples: int) -> Tensor:
    try:
        loss: Tensor = layer(hidden, target)
    except SoftmaxBenchError as error:
        raise DivergedError(f"training diverged after {examples} examples: {error}") from error
    if not bool(loss.detach().isfinite()):
        raise DivergedError(
            f"training diverged after {examples} examples: the loss is not finite; try a lower "
            "learning rate"
        )
    return loss


def _batches(train: Ids, size: int, seed: int) -> Iterator[Ids]:
    """Places of training examples, pass after pass, without end."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(train)
        for start in range(0, len(order), size):
            yield np.sort(order[start : start + size])  # a mapped file is read forwards


def _examples(layer: OutputLayer, states: States, places: Ids) -> tuple[Tensor, Tensor]:
    parameter = next(layer.parameters())
    hidden = torch.from_numpy(states.hidden[places].astype(np.float32)).to(parameter)
    target = torch.from_numpy(states.targets[places].astype(np.int64))
    return hidden, target.to(parameter.device)


def _blocks(layer: OutputLayer, states: States, places: Ids) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(places), _AT_ONCE):
        yield _examples(layer, states, places[start : start + _AT_ONCE])


@torch.no_grad()
def _quality(layer: OutputLayer, states: States, places: Ids) -> Quality:
    """Exact and normalised, whatever the layer was trained with."""
    layer.eval()
    log_prob = [layer.target_log_prob(h, t).double() for h, t in _blocks(layer, states, places)]
    layer.train()
    counts = torch.from_numpy(states.class_counts)
    targets = torch.from_numpy(states.targets[places].astype(np.int64))
    return summarise_log_probs(torch.cat(log_prob).cpu(), targets, counts)


def _evaluation(
    layer: OutputLayer, states: States, places: Ids, quality: Quality | None = None
) -> Evaluation:
    quality = _quality(layer, states, places) if quality is None else quality
    best, ten = _accuracies(layer, states, places[:_RANKED])
    return Evaluation(
        tokens=quality.tokens,
        unknown_tokens=0,
        nats=quality.nats,
        perplexity=quality.perplexity,
        adjusted_perplexity=quality.perplexity,
        top1=best,
        top10=ten,
        block_nats=list(quality.block_nats),
        bands=[FrequencyBand(**asdict(band)) for band in quality.bands],
    )


@torch.no_grad()
def _accuracies(layer: OutputLayer, states: States, places: Ids) -> tuple[float, float]:
    """Shares of examples whose class is the most probable, and among the ten most probable."""
    layer.eval()
    hits = []
    for hidden, target in _blocks(layer, states, places):
        _, classes = layer.topk(hidden, min(10, layer.num_classes))
        hits.append(classes == target.unsqueeze(1))
    layer.train()
    found = torch.cat(hits).double()
    return float(found[:, 0].mean()), float(found.sum(1).mean())
