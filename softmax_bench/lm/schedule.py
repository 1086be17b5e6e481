"""How the learning rate changes in the course of training, and when training ends early."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from softmax_bench.lm.training_state import Progress

SCHEDULES = ("constant", "linear", "cosine", "stall", "epoch")


@dataclass(frozen=True)
class Schedule:
    """The learning rate, as a multiple of that at the start, and early stopping.

    A function of where training is and of the evaluations so far, so that interrupted training
    goes on as if it had not been.
    """

    kind: str = "constant"
    """``"linear"`` and ``"cosine"`` fall to zero over the budget; ``"stall"`` multiplies the rate
    by ``decay`` at every evaluation that is no better than the best before it; ``"epoch"`` at every
    pass over the text after the first ``decay_after`` (Zaremba et al. 2014)."""
    decay: float = 0.5
    decay_after: int = 4
    patience: int = 0
    """Training ends after so many evaluations in a row that are no better than the best before
    them; 0 for never."""

    def rate(
        self, tokens: int, max_tokens: int, epoch_tokens: int, history: Sequence[Progress]
    ) -> float:
        """The multiple for the next step.

        Args:
            tokens: Predicted so far.
            max_tokens: Budget.
            epoch_tokens: Of one pass over the text.
            history: The evaluations so far.
        """
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
        """Whether training has converged."""
        since = len(history) - 1 - _improvements(history)[-1] if history else 0
        return 0 < self.patience <= since


def _improvements(history: Sequence[Progress]) -> list[int]:
    """Places of the evaluations that were better than all before them."""
    found, best = [], math.inf
    for place, point in enumerate(history):
        if point.valid.nats < best:
            found.append(place)
            best = point.valid.nats
    return found
