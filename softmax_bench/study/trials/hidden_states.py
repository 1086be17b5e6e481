"""Training of output layers on given hidden states, without an encoder or language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softmax_bench.corpora.states import Ids, States
from softmax_bench.layers import OutputLayer, create_layer
from softmax_bench.lm import (
    Checkpoint,
    Progress,
    Quality,
    TrainingState,
    run_steps,
    start_uniformly,
)
from softmax_bench.lm.evaluate import summarise_log_probs
from softmax_bench.measure import watch_machine
from softmax_bench.records.record import TrainRecord
from softmax_bench.records.result import Evaluation
from softmax_bench.records.trial import TrainTrial, tuned_spec
from softmax_bench.study.trials.evaluation import evaluation_of_part
from softmax_bench.study.trials.part import affordable_tokens
from softmax_bench.study.trials.setting import now
from softmax_bench.study.trials.train import (
    Final,
    train_record,
    trial_optimizer,
    trial_schedule,
)

_AT_ONCE = 1024
"""Number of examples that are evaluated together."""
_RANKED = 4096
"""Most examples of a split that are ranked, because top-k takes far longer than the probability of
the target with most layers.
"""


def train_on_states(
    trial: TrainTrial,
    states: States,
    *,
    on_step: Callable[[int], None] = lambda examples: None,
    on_evaluation: Callable[[Progress], None] = lambda progress: None,
    checkpoint: Checkpoint | None = None,
) -> TrainRecord:
    """Train a layer on the training examples, in a new random order for each pass over them.

    Args:
        trial: What to train; its ``encoder`` is ``"given"``, and a step takes ``batch_size``
            times ``bptt`` examples.
        states: The examples.
        on_step: Called after each step with the number of its examples, and before the first with
            those before the checkpoint.
        on_evaluation: Called after each evaluation on the validation examples.
        checkpoint: As for :func:`softmax_bench.study.trials.train.train_trial`.

    Raises:
        SoftmaxBenchError: The checkpoint cannot be written.
        DivergedError: Training diverged to NaN or infinity.
    """
    started = now()
    torch.set_num_threads(trial.threads)
    torch.manual_seed(trial.seed)
    layer = create_layer(
        tuned_spec(trial.layer, trial.tuned), trial.hidden_size, states.vocab_size,
        states.class_counts,
        device=trial.device, dtype=getattr(torch, trial.dtype), sparse=True,
    )  # fmt: skip
    if trial.init_range is not None:
        start_uniformly(layer, trial.init_range)
    with watch_machine() as watched:
        history = _train(layer, trial, states, on_step, on_evaluation, checkpoint)

    def final() -> Final:
        valid = states.split("valid")
        if trial.tuning:
            part = _part(valid, affordable_tokens(trial))
            return Final(valid=evaluation_of_part(_quality(layer, states, part)))
        trained_part = _seen(trial, states, history[-1].tokens)
        return Final(
            valid=_evaluation(layer, states, valid),
            test=_evaluation(layer, states, states.split("test")),
            train_perplexity=_quality(layer, states, trained_part).perplexity,
        )

    return train_record(
        trial,
        started,
        history,
        checkpoint,
        layer,
        layer,
        disturbance=watched[0],
        evaluate_finally=final,
    )


def _train(
    layer: OutputLayer,
    trial: TrainTrial,
    states: States,
    on_step: Callable[[int], None],
    on_evaluation: Callable[[Progress], None],
    checkpoint: Checkpoint | None,
) -> list[Progress]:
    optimizer = trial_optimizer(trial, layer, layer)
    part = _part(states.split("valid"), affordable_tokens(trial) // trial.evaluations)
    state = TrainingState() if checkpoint is None else checkpoint.load(layer, optimizer)
    batches = _batches(states.split("train"), trial.batch_size * trial.bptt, trial.seed)
    batches = islice(batches, state.window, None)

    def batch() -> tuple[tuple[Any, ...], int]:
        places = next(batches)
        state.window += 1
        return _examples(layer, states, places), len(places)

    return run_steps(
        layer,
        optimizer,
        state,
        batch,
        lambda *examples: (layer(*examples), None),
        lambda: _quality(layer, states, part),
        max_tokens=trial.max_tokens,
        clip_norm=trial.clip_norm,
        epoch_tokens=len(states.split("train")),
        evaluations=trial.evaluations,
        schedule=trial_schedule(trial),
        unit="examples",
        on_step=on_step,
        on_evaluation=on_evaluation,
        checkpoint=checkpoint,
    )


def _batches(train: Ids, size: int, seed: int) -> Iterator[Ids]:
    """Positions of training examples, pass after pass, without end."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(train)
        for start in range(0, len(order), size):
            yield np.sort(order[start : start + size])  # mapped files are read in order


def _part(places: Ids, examples: int) -> Ids:
    """That many of the examples, at least one, evenly spread."""
    chosen = np.linspace(0, len(places) - 1, min(max(1, examples), len(places)), dtype=np.int64)
    return places[chosen]


def _seen(trial: TrainTrial, states: States, trained: int) -> Ids:
    """Examples that were trained on, at most as many as there are to test."""
    most = min(trained, len(states.split("test")), affordable_tokens(trial))
    return next(_batches(states.split("train"), most, trial.seed))


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
    """Exact, normalised evaluation, whatever the layer was trained with."""
    layer.eval()
    log_prob = [layer.target_log_prob(h, t).double() for h, t in _blocks(layer, states, places)]
    layer.train()
    counts = torch.from_numpy(states.class_counts)
    targets = torch.from_numpy(states.targets[places].astype(np.int64))
    return summarise_log_probs(torch.cat(log_prob).cpu(), targets, counts)


def _evaluation(layer: OutputLayer, states: States, places: Ids) -> Evaluation:
    quality = _quality(layer, states, places)
    top1, top10, ndcg10 = _ranking(layer, states, places[:_RANKED])
    return Evaluation(
        tokens=quality.tokens,
        unknown_tokens=0,
        nats=quality.nats,
        perplexity=quality.perplexity,
        adjusted_perplexity=quality.perplexity,
        top1=top1,
        top10=top10,
        ndcg10=ndcg10,
        block_nats=list(quality.block_nats),
        bands=list(quality.bands),
    )


@torch.no_grad()
def _ranking(layer: OutputLayer, states: States, places: Ids) -> tuple[float, float, float]:
    """Recall at 1 and at 10, and NDCG at 10, for examples with one right class each."""
    layer.eval()
    hits = []
    for hidden, target in _blocks(layer, states, places):
        _, classes = layer.topk(hidden, min(10, layer.num_classes))
        hits.append(classes == target.unsqueeze(1))
    layer.train()
    hit = torch.cat(hits).double()
    discount = 1 / torch.arange(2, hit.shape[1] + 2, device=hit.device).log2().double()
    gain = hit @ discount  # the ideal gain, with the right class in first place, is 1
    return float(hit[:, 0].mean()), float(hit.sum(1).mean()), float(gain.mean())
