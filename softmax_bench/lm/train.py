"""The training loop: one visible loop, the same for every output layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.lm.evaluate import Quality, evaluate
from softmax_bench.lm.model import LanguageModel
from softmax_bench.lm.optimizers import PairedOptimizer, clip_grad_norm
from softmax_bench.lm.streams import IGNORED, Streams


class DivergedError(SoftmaxBenchError):
    """Training went to NaN or infinity."""


@dataclass(frozen=True)
class Progress:
    """The state of training at an evaluation."""

    tokens: int
    seconds: float
    """Spent on training alone."""
    train_loss: float
    """Mean training objective since the evaluation before."""
    valid: Quality


def train(
    model: LanguageModel,
    optimizer: PairedOptimizer,
    text: Streams,
    valid: Streams,
    *,
    window: int,
    valid_window: int,
    max_tokens: int,
    clip_norm: float,
    evaluations: int = 6,
    on_step: Callable[[int], None] = lambda tokens: None,
) -> list[Progress]:
    """Train until ``max_tokens`` tokens were predicted, passing over ``text`` as often as needed.

    The encoder's state is carried from window to window and dropped at the start of the text.

    Args:
        model: Trained in place.
        optimizer: Over the model's parameters.
        text: Training text.
        valid: Text to evaluate on, ``evaluations`` times at equal distances, the last at the end.
        window: Time steps through which gradients flow back.
        valid_window: Time steps evaluated at once.
        max_tokens: Budget.
        clip_norm: Greatest joint norm of all gradients.
        evaluations: How often to evaluate.
        on_step: Called after each step with the number of tokens it predicted.

    Raises:
        DivergedError: The loss or the hidden states are not finite any more.
    """
    model.train()
    history: list[Progress] = []
    state = None
    tokens, seconds = 0, 0.0
    losses: list[Tensor] = []
    started = time.perf_counter()
    for first, inputs, targets in _windows_forever(text, window):
        optimizer.zero_grad()
        loss, state = _forward(model, inputs, targets, None if first else state, tokens)
        loss.backward()
        clip_grad_norm(model.parameters(), clip_norm)
        optimizer.step()
        losses.append(loss.detach())
        predicted = int((targets != IGNORED).sum())
        tokens += predicted
        on_step(predicted)
        if tokens * evaluations >= max_tokens * (len(history) + 1):
            train_loss = float(torch.stack(losses).mean())
            seconds += time.perf_counter() - started
            history.append(
                Progress(tokens, seconds, train_loss, evaluate(model, valid, valid_window))
            )
            if tokens >= max_tokens:
                break
            losses.clear()
            started = time.perf_counter()
    return history


def _forward(
    model: LanguageModel, inputs: Tensor, targets: Tensor, state: object, tokens: int
) -> tuple[Tensor, object]:
    try:
        loss, state = model(inputs, targets, state)
    except SoftmaxBenchError as error:
        raise DivergedError(f"training diverged after {tokens} tokens: {error}") from error
    if not bool(loss.detach().isfinite()):
        raise DivergedError(
            f"training diverged after {tokens} tokens: the loss is {float(loss.detach())}; try a "
            "lower learning rate"
        )
    return loss, state


def _windows_forever(text: Streams, window: int) -> Iterator[tuple[bool, Tensor, Tensor]]:
    while True:
        for index, (inputs, targets) in enumerate(text.windows(window)):
            yield index == 0, inputs, targets
