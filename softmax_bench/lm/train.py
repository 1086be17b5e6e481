"""The training loop, which is the same for every output layer."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.lm.checkpoint import Checkpoint, memory, recall
from softmax_bench.lm.encoders import State
from softmax_bench.lm.evaluate import Quality, evaluate
from softmax_bench.lm.graphed import Graphed, why_no_graph
from softmax_bench.lm.model import LanguageModel
from softmax_bench.lm.optimizers import Optimizer, clip_grad_norm
from softmax_bench.lm.schedule import Schedule
from softmax_bench.lm.streams import Streams
from softmax_bench.lm.training_state import Progress, TrainingState

_log = logging.getLogger(__name__)

CONSTANT = Schedule()
DIVERGED_NATS = 30.0
"""Validation loss in nats at which training stops; guessing among a billion classes has 21."""


class DivergedError(SoftmaxBenchError):
    """Training diverged to NaN or infinity."""


def train(
    model: LanguageModel,
    optimizer: Optimizer,
    text: Streams,
    valid: Streams,
    *,
    window: int,
    valid_window: int,
    max_tokens: int,
    clip_norm: float,
    evaluations: int = 6,
    schedule: Schedule = CONSTANT,
    on_step: Callable[[int], None] = lambda tokens: None,
    on_evaluation: Callable[[Progress], None] = lambda progress: None,
    checkpoint: Checkpoint | None = None,
    cuda_graph: bool = False,
) -> list[Progress]:
    """Train until ``max_tokens`` tokens are predicted, with as many passes as necessary.

    The encoder's state is carried from window to window and reset at the start of the text.

    Args:
        model: Trained in place.
        optimizer: Over the model's parameters.
        text: Training text.
        valid: Text to evaluate on, ``evaluations`` times at equal intervals, the last at the end.
            If training may stop early, the final model is the one of the best evaluation.
        window: Time steps through which gradients flow back.
        valid_window: Time steps evaluated at once.
        max_tokens: Budget.
        clip_norm: Maximum joint norm of all gradients.
        evaluations: How often to evaluate.
        schedule: Learning rate schedule.
        on_step: Called after each step with the number of tokens it predicted, and before the
            first with those predicted before the checkpoint.
        on_evaluation: Called after each evaluation.
        checkpoint: The checkpoint to resume from and save to; the time for saving is not counted.
        cuda_graph: Whether to run steps as a CUDA graph (see
            :class:`~softmax_bench.lm.graphed.Graphed`) if the device and the layer allow it.

    Raises:
        DivergedError: The loss or the hidden states are no longer finite, or the validation loss
            exceeds ``DIVERGED_NATS``.
        SoftmaxBenchError: The checkpoint cannot be written.
    """
    if cuda_graph and (reason := why_no_graph(model.layer)):
        _log.warning("steps run without a CUDA graph: %s", reason)
        cuda_graph = False
    model.train()
    state = TrainingState() if checkpoint is None else checkpoint.load(model, optimizer)
    windows = _windows_forever(text, window, state.window)

    def batch() -> tuple[tuple[Any, ...], int]:
        place, inputs, targets = next(windows)
        state.window = place + 1
        carried = None if place == 0 else state.carried
        return (inputs, targets, carried), text.num_targets(place, window)

    return run_steps(
        model,
        optimizer,
        state,
        batch,
        model,
        lambda: evaluate(model, valid, valid_window),
        max_tokens=max_tokens,
        clip_norm=clip_norm,
        epoch_tokens=len(text.tokens),
        evaluations=evaluations,
        schedule=schedule,
        on_step=on_step,
        on_evaluation=on_evaluation,
        checkpoint=checkpoint,
        cuda_graph=cuda_graph,
    )


def run_steps(
    model: nn.Module,
    optimizer: Optimizer,
    state: TrainingState,
    batch: Callable[[], tuple[tuple[Any, ...], int]],
    forward: Callable[..., tuple[Tensor, State]],
    quality: Callable[[], Quality],
    *,
    max_tokens: int,
    clip_norm: float,
    epoch_tokens: int,
    evaluations: int = 6,
    schedule: Schedule = CONSTANT,
    unit: str = "tokens",
    on_step: Callable[[int], None],
    on_evaluation: Callable[[Progress], None],
    checkpoint: Checkpoint | None,
    cuda_graph: bool = False,
) -> list[Progress]:
    """The training loop for any step that returns a loss.

    Args:
        model: Trained in place.
        optimizer: Over the model's parameters.
        state: The state to start from.
        batch: Returns the arguments of ``forward`` for the next step, and its number of targets.
        forward: Returns the loss, and the encoder's state to carry to the next step.
        quality: Evaluates the model on the validation data.
        max_tokens: Budget in targets.
        clip_norm: Maximum joint norm of all gradients.
        epoch_tokens: Targets of one pass over the training data.
        evaluations: How often to evaluate.
        schedule: Learning rate schedule.
        unit: Name of the targets in messages.
        on_step: Called after each step.
        on_evaluation: Called after each evaluation.
        checkpoint: The checkpoint to save to.
        cuda_graph: Whether to run steps as a CUDA graph.

    Raises:
        DivergedError: The loss or the hidden states are no longer finite, or the validation loss
            exceeds ``DIVERGED_NATS``. On a GPU, losses are only checked before each evaluation and
            checkpoint.
        SoftmaxBenchError: The checkpoint cannot be written.
    """

    def update(rate: float, *operands: Any) -> tuple[Tensor, State]:
        optimizer.scale_rate(rate)
        optimizer.zero_grad()
        loss, carried = forward(*operands)
        if loss.device.type == "cpu":
            _check_finite(float(loss.detach()))
        loss.backward()
        clip_grad_norm(model.parameters(), clip_norm)
        optimizer.step()
        return loss.detach(), carried

    step = Graphed(update) if cuda_graph else update
    if state.tokens:
        on_step(state.tokens)
    started = time.perf_counter()
    while state.tokens < max_tokens and not schedule.ends(state.history):
        rate = schedule.rate(state.tokens, max_tokens, epoch_tokens, state.history)
        operands, predicted = batch()
        with _diverged(f"after {state.tokens} {unit}"):
            loss, state.carried = step(rate, *operands)
        state.losses.append(loss)
        state.tokens += predicted
        on_step(predicted)
        if state.tokens * evaluations >= max_tokens * (len(state.history) + 1):
            train_loss = _mean(state, unit)
            trained = time.perf_counter()
            state.seconds += trained - started
            evaluation = quality()
            evaluation_seconds = time.perf_counter() - trained
            if not evaluation.nats < DIVERGED_NATS:
                raise DivergedError(
                    f"training diverged after {state.tokens} {unit}: the validation perplexity is "
                    f"{evaluation.perplexity:.3g}; try a lower learning rate"
                )
            best = min((point.valid.nats for point in state.history), default=math.inf)
            if schedule.patience and evaluation.nats < best:
                state.best = {name: value.clone() for name, value in memory(model).items()}
            point = Progress(
                state.tokens, state.seconds, train_loss, evaluation, evaluation_seconds
            )
            state.history.append(point)
            on_evaluation(point)
            state.losses.clear()
            started = time.perf_counter()
        if checkpoint is not None and checkpoint.due():
            _mean(state, unit)
            state.seconds += time.perf_counter() - started
            checkpoint.save(model, optimizer, state)
            started = time.perf_counter()
    if state.best is not None:
        recall(model, state.best)
    return state.history


@contextmanager
def _diverged(when: str) -> Iterator[None]:
    """Turn an error into a :class:`DivergedError` that says when it occurred."""
    try:
        yield
    except SoftmaxBenchError as error:
        raise DivergedError(f"training diverged {when}: {error}") from error


def _mean(state: TrainingState, unit: str) -> float:
    """The mean loss since the last evaluation; on a GPU, the first time any of them is read."""
    mean = float(torch.stack(state.losses).mean()) if state.losses else 0.0
    with _diverged(f"before {state.tokens} {unit}"):
        _check_finite(mean)
    return mean


def _check_finite(loss: float) -> None:
    if not math.isfinite(loss):
        raise SoftmaxBenchError(f"the loss is {loss}; try a lower learning rate")


def _windows_forever(
    text: Streams, window: int, first: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The text's windows with their numbers, from number ``first`` on, again and again."""
    while True:
        for place, (inputs, targets) in enumerate(text.windows(window, first), first):
            yield place, inputs, targets
        first = 0
