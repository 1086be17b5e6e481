"""How many bytes a primitive holds at once: what the layers' ``cost`` adds up.

Each primitive's own is beside it, counted from what it allocates; operands are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

Amount = int | float
"""Counted, or a mean over draws."""
TOKEN_BYTES = 64
"""Of a token beside its hidden state: some vectors of ids, weights, scores and normalisers."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that a differentiable computation allocates and holds, forward and backward."""

    forward: Amount
    """Most in the forward."""
    kept: Amount
    """From the forward until its backward: what was saved for it, and gradients made early."""
    backward: Amount
    """Most in its backward, with what was kept."""
    gradients: Amount
    """Of parameters, which stay."""
    hidden: Amount
    """Gradient of the hidden states, which stays too."""
    workspace: Amount = 0
    """Scratch that is made once and then reused, by all primitives together."""

    def holding(self, kept: Amount) -> Footprint:
        """With so much more from the start of the forward to the end of the backward."""
        return replace(
            self,
            forward=self.forward + kept,
            kept=self.kept + kept,
            backward=self.backward + kept,
        )

    @property
    def activations(self) -> Amount:
        """What is held at the peak less the gradients of the parameters."""
        return self.workspace + max(self.forward, self.backward) - self.gradients


def in_turn(parts: Sequence[Footprint]) -> Footprint:
    """Of parts on the same hidden states: in this order forward, the other way round backward."""
    forward: Amount = 0
    backward: Amount = 0
    held: Amount = 0
    for part in parts:
        forward = max(forward, held + part.forward)
        held += part.kept
    kept, hidden = held, max(part.hidden for part in parts)
    for position, part in enumerate(reversed(parts)):
        held -= part.kept
        summed = hidden if position else 0  # what the parts before have given the hidden states
        backward = max(backward, held + summed + part.backward)
        held += part.gradients
    return Footprint(
        forward=forward,
        kept=kept,
        backward=backward,
        gradients=sum(part.gradients for part in parts),
        hidden=hidden,
        workspace=max(part.workspace for part in parts),
    )


def row_sparse_bytes(rows: Amount, width: int, size: int, *, bias: bool) -> Amount:
    """Of the gradients in so many rows of a weight, and of a bias: numbers and ids."""
    return rows * (width * size + 8) + rows * (size + 8) * bias
