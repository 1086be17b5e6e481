"""A text as parallel contiguous streams, for truncated backpropagation through time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

IGNORED = -100
"""Target of a position without a token."""


@dataclass(frozen=True)
class Streams:
    """Streams in which every token is predicted exactly once, from all tokens before it.

    The text is not copied: a window is read when it is requested, so that a text mapped from a file
    may be larger than memory.
    """

    tokens: npt.NDArray[np.integer]
    batch_size: int
    """Number of parallel streams."""
    length: int
    """Time steps of a stream; the last stream is padded with :data:`IGNORED`."""
    steps: int
    """How many of these are read: all of them, except in a part of a text."""
    first_input: int
    """The token before the first token."""
    device: torch.device
    """The device that windows are moved to."""

    def windows(
        self, length: int, first: int = 0
    ) -> Iterator[tuple[Int[Tensor, "time batch"], Int[Tensor, "time batch"]]]:
        """Inputs and targets of successive stretches of the streams.

        Args:
            length: Time steps of a window; the last may be shorter.
            first: Index of the first window, counted from 0.
        """
        for start in range(first * length, self.steps, length):
            yield self._window(start, min(start + length, self.steps))

    def _window(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        inputs = np.zeros((stop - start, self.batch_size), dtype=np.int64)
        targets = np.full_like(inputs, IGNORED)
        for stream in range(self.batch_size):
            begin, end = stream * self.length + start, stream * self.length + stop
            target = self.tokens[begin:end]
            targets[: len(target), stream] = target
            if begin == 0:
                inputs[0, stream] = self.first_input
                inputs[1:, stream] = self.tokens[: end - 1]
            else:
                before = self.tokens[begin - 1 : end - 1]
                inputs[: len(before), stream] = before
        return self._sent(inputs), self._sent(targets)

    def _sent(self, array: npt.NDArray[np.int64]) -> Tensor:
        sent = torch.from_numpy(array)
        if self.device.type == "cuda":  # a copy from pinned memory does not wait for the queue
            sent = sent.pin_memory()
        return sent.to(self.device, non_blocking=True)

    def num_targets(self, window: int, length: int) -> int:
        """Number of tokens to predict in a window, counted without reading from the device."""
        start = window * length
        steps = min(length, self.length - start)
        left = len(self.tokens) - self.length * np.arange(self.batch_size) - start
        return int(left.clip(0, steps).sum())

    def read(self) -> list[npt.NDArray[np.integer]]:
        """The tokens of each stream that are read."""
        starts = range(0, len(self.tokens), self.length)
        return [self.tokens[start : start + self.steps] for start in starts]

    def part(self, tokens: int) -> Streams:
        """The beginning of each stream, together about ``tokens`` if there are that many."""
        return replace(self, steps=min(self.length, max(1, -(-tokens // self.batch_size))))

    def to(self, device: torch.device) -> Streams:
        """The same streams with windows on another device."""
        return replace(self, device=device)


def make_streams(tokens: npt.NDArray[np.integer], batch_size: int, first_input: int) -> Streams:
    """Cut ``tokens`` into ``batch_size`` streams of nearly equal length.

    Args:
        tokens: The text, in memory or mapped from a file.
        batch_size: Number of parallel streams; fewer if the text has fewer tokens.
        first_input: The token before the first token: ``<eos>``.
    """
    batch_size = min(batch_size, max(1, len(tokens)))
    length = -(-len(tokens) // batch_size)
    return Streams(tokens, batch_size, length, length, first_input, torch.device("cpu"))
