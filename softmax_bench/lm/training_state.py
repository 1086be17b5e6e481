"""What training remembers from step to step, besides the model and its optimiser."""

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
    """Spent on training alone."""
    train_loss: float
    """Mean training objective since the evaluation before."""
    valid: Quality
    evaluation_seconds: float
    """Spent on this evaluation."""


@dataclass
class TrainingState:
    """Where training is."""

    tokens: int = 0
    """Predicted so far."""
    seconds: float = 0.0
    """Spent on training alone, without evaluations and checkpoints."""
    window: int = 0
    """The next stretch of the text."""
    carried: State = None
    """The encoder's state."""
    losses: list[Tensor] = field(default_factory=list)
    """Of each step since the last evaluation."""
    history: list[Progress] = field(default_factory=list)
    """The evaluations."""
    best: dict[str, Tensor] | None = None
    """The model at the best evaluation, where training may end early."""
