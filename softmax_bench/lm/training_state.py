"""The state of training between steps, besides the model and its optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from softmax_bench.lm.encoders import State
from softmax_bench.lm.evaluate import Quality


@dataclass(frozen=True)
class Progress:
    """The state of training at an evaluation."""

    tokens: int
    seconds: float
    """Training time alone."""
    train_loss: float
    """Mean training objective since the last evaluation."""
    valid: Quality
    evaluation_seconds: float
    """Time of this evaluation."""


@dataclass
class TrainingState:
    """How far training is."""

    tokens: int = 0
    """Tokens predicted so far."""
    seconds: float = 0.0
    """Training time alone, without evaluations and checkpoints."""
    window: int = 0
    """Index of the next window of the text."""
    carried: State = None
    """The encoder's state."""
    losses: list[Tensor] = field(default_factory=list)
    """Losses of the steps since the last evaluation."""
    history: list[Progress] = field(default_factory=list)
    """The evaluations so far."""
    best: dict[str, Tensor] | None = None
    """The model at the best evaluation, if training may stop early."""
