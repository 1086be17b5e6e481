"""How the learning rate changes during training, and when training stops early."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from softmax_bench.lm.training_state import Progress

SCHEDULES = ("constant", "linear", "cosine", "stall", "epoch")


@dataclass(frozen=True)
class Schedule:
    """The learning rate relative to that at the start, and early stopping.

    It is a function of the progress of training and the evaluations so far, so that interrupted
    training resumes exactly.
    """

    kind: str = "constant"
    """``"linear"`` and ``"cosine"`` fall to zero over the budget; ``"stall"`` multiplies the rate
    by ``decay`` at every evaluation that is no better than the best before it; ``"epoch"`` at every
    pass over the text after the first ``decay_after`` (Zaremba et al. 2014)."""
    decay: float = 0.5
    decay_after: int = 4
    patience: int = 0
    """Training stops after this many consecutive evaluations that are no better than the best
    before them; 0 for never.
    """
    warmup: int = 0
    """Tokens, but at most a tenth of the budget, over which the rate rises from zero."""

    def rate(
        self, tokens: int, max_tokens: int, epoch_tokens: int, history: Sequence[Progress]
    ) -> float:
        """The relative rate of the next step.

        Args:
            tokens: Tokens predicted so far.
            max_tokens: Budget in tokens.
            epoch_tokens: Tokens of one pass over the text.
            history: The evaluations so far.
        """
        warmup = min(self.warmup, max_tokens / 10)
        rising = tokens / warmup if tokens < warmup else 1.0
        return rising * self._decayed(tokens, max_tokens, epoch_tokens, history)

    def _decayed(
        self, tokens: int, max_tokens: int, epoch_tokens: int, history: Sequence[Progress]
    ) -> float:
        if self.kind == "linear":
            return 1 - tokens / max_tokens
        if self.kind == "cosine":
            return (1 + math.cos(math.pi * tokens / max_tokens)) / 2
        if self.kind == "stall":
            return self.decay ** (len(history) - len(_improvements(history)))
        if self.kind == "epoch":
            return self.decay ** max(0, tokens // epoch_tokens + 1 - self.decay_after)
        return 1.0

    def ends(self, history: Sequence[Progress]) -> bool:
        """Whether training should stop because it has converged."""
        since = len(history) - 1 - _improvements(history)[-1] if history else 0
        return 0 < self.patience <= since


def _improvements(history: Sequence[Progress]) -> list[int]:
    """Indices of the evaluations that were better than all before them."""
    indices, best = [], math.inf
    for index, point in enumerate(history):
        if point.valid.nats < best:
            indices.append(index)
            best = point.valid.nats
    return indices
