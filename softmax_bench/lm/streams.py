"""A text as parallel contiguous streams, for truncated back-propagation through time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

IGNORED = -100
"""Target of a place that holds no token."""


@dataclass(frozen=True)
class Streams:
    """Every token of a text is predicted exactly once, each from all before it in its stream."""

    inputs: Int[Tensor, "time batch"]
    targets: Int[Tensor, "time batch"]
    """The last stream is filled up with :data:`IGNORED`."""

    def windows(self, length: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Successive stretches of ``length`` time steps; the last may be shorter."""
        yield from zip(self.inputs.split(length), self.targets.split(length), strict=True)

    def to(self, device: torch.device) -> Streams:
        """The same on another device."""
        return Streams(self.inputs.to(device), self.targets.to(device))


def make_streams(tokens: npt.NDArray[np.integer], batch_size: int, first_input: int) -> Streams:
    """Cut ``tokens`` into ``batch_size`` streams of nearly equal length.

    Args:
        tokens: The text.
        batch_size: Streams side by side; fewer where the text has fewer tokens.
        first_input: What stands before the first token: ``<eos>``.
    """
    batch_size = min(batch_size, max(1, len(tokens)))
    length = -(-len(tokens) // batch_size)
    targets = torch.full((batch_size * length,), IGNORED)
    targets[: len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
    inputs = torch.zeros_like(targets)
    inputs[:1] = first_input
    inputs[1 : len(tokens) + 1] = targets[: len(tokens)][: batch_size * length - 1]

    def side_by_side(flat: Tensor) -> Tensor:
        return flat.view(batch_size, length).t().contiguous()

    return Streams(side_by_side(inputs), side_by_side(targets))
