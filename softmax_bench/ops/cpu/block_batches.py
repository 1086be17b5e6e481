"""Which blocks are multiplied together, and where each token's states are meanwhile.

With one product per block, most of the time would go into calling it, and it would not occupy more
than one core, because most blocks serve a token or two. So several blocks are multiplied together,
each with as many slots for tokens as the fullest of them needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

_IN_CACHE = 2**20
"""Most numbers in the rows of a batch, so that gathered rows are still in cache when they are
reused.
"""
_EMPTY = 4e6
"""Most multiplied numbers for a batch's empty slots; with more, a further batch would be faster."""
_MOVED = 16
"""Rows of a block for which the products take as long as moving a token's states there and back."""


@dataclass(frozen=True)
class Batch:
    """Adjacent blocks, among those touched, that are multiplied together."""

    first: int
    """Position of the first block among those touched."""
    blocks: int
    tokens: int
    """Slots of each block: the tokens of the fullest one."""

    @property
    def slots(self) -> int:
        """Slots of all its blocks."""
        return self.blocks * self.tokens


def in_batches(counts: Sequence[int], size: int, width: int) -> list[Batch]:
    """Batches of consecutive blocks, as many as fit in cache with few empty slots.

    Args:
        counts: Tokens of each block touched.
        size: Number of rows in a block.
        width: Numbers in a row.
    """
    most_blocks, most_empty = _IN_CACHE / (size * width), _EMPTY / ((size + _MOVED) * width)
    batches: list[Batch] = []
    first = tokens = total = 0
    for position, count in enumerate(counts):
        blocks = position - first + 1
        empty = blocks * max(tokens, count) - total - count
        if blocks > 1 and (blocks > most_blocks or empty > most_empty):
            batches.append(Batch(first, blocks - 1, tokens))
            first, tokens, total = position, 0, 0
        tokens, total = max(tokens, count), total + count
    if counts:
        batches.append(Batch(first, len(counts) - first, tokens))
    return batches


def slots(
    order: Int[Tensor, "N"], counts: Int[Tensor, "T"], batches: Sequence[Batch]
) -> tuple[Int[Tensor, "S"], Int[Tensor, "S"]]:
    """The token in each slot, and the same with N in place of unused slots.

    The slots of a block are adjacent. Unused ones repeat its first token, so that what is computed
    with them is as finite as the rest.

    Args:
        order: Tokens in the order of their blocks.
        counts: Tokens of each of the T blocks touched.
        batches: All batches.
    """
    tokens = [batch.tokens for batch in batches for _ in range(batch.blocks)]
    num_tokens = order.shape[0]
    lengths = torch.tensor(tokens, dtype=torch.int64, device=order.device)
    first = counts.cumsum(0) - counts
    shift = lengths.cumsum(0) - lengths - first
    slot = torch.arange(num_tokens, device=order.device)
    slot += shift.repeat_interleave(counts, output_size=num_tokens)
    source = order.index_select(0, first).repeat_interleave(lengths, output_size=sum(tokens))
    source.index_copy_(0, slot, order)
    sink = torch.full_like(source, num_tokens).index_copy_(0, slot, order)
    return source, sink
