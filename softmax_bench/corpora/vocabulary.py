"""Words and their ids: the most frequent types, with ids in descending order of frequency."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from softmax_bench.corpora.tokens import Ids
from softmax_bench.errors import SoftmaxBenchError

UNKNOWN = "<unk>"
END_OF_LINE = "<eos>"


@dataclass(frozen=True)
class Vocabulary:
    """Types by id; id 0 is the most frequent type of the training text."""

    words: tuple[str, ...]
    unknown_types: int = 0
    """How many types of the text, in all splits together, ``<unk>`` stands for."""

    @cached_property
    def ids(self) -> dict[str, int]:
        """Id of every type."""
        return {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)


class TypeIndex:
    """Gives every new type a provisional number, in order of first appearance."""

    def __init__(self) -> None:
        self.numbers: defaultdict[str, int] = defaultdict()
        # A missing type gets the next free number without leaving C, which is twice as fast as a
        # loop.
        self.numbers.default_factory = self.numbers.__len__

    def encode(self, tokens: Sequence[str]) -> Ids:
        """Provisional numbers of tokens; new types get the next free ones."""
        return np.fromiter(map(self.numbers.__getitem__, tokens), np.int32, len(tokens))


def choose_vocabulary(
    types: Sequence[str], counts: npt.NDArray[np.int64], size: int | None
) -> tuple[Vocabulary, Ids]:
    """Choose the ``size`` most frequent training types.

    ``<unk>`` is one of them if the text contains it or a type must be mapped to it. ``<eos>``
    always is, however rare, because every split begins after one.

    Args:
        types: All types, of training text or elsewhere, by provisional number.
        counts: How often each occurs in the training text.
        size: Requested size, including ``<unk>`` and ``<eos>``; all training types by default.

    Returns:
        The vocabulary, and an array that maps provisional numbers to ids.

    Raises:
        SoftmaxBenchError: ``size`` is less than 2 or more than the training text has.
    """
    words = list(types)
    needs_unknown = bool((counts == 0).any())  # a type that occurs only in other splits
    if UNKNOWN not in words:
        words.append(UNKNOWN)
        counts = np.append(counts, 0)
    unknown, end_of_line = words.index(UNKNOWN), words.index(END_OF_LINE)
    offered = int(np.count_nonzero(counts)) + int(counts[unknown] == 0 and needs_unknown)
    if size is None:
        size = offered
    if size < 2:
        raise SoftmaxBenchError(f"the vocabulary must have at least 2 types, not {size}")
    if size > offered:
        raise SoftmaxBenchError(
            f"the training text has only {offered:,} types, too few for a vocabulary of "
            f"{size:,}: use {offered} or less"
        )
    # Stable: of equally frequent types, the one that appears first comes first.
    order = np.argsort(-counts, kind="stable")
    chosen = order[:size]
    if size < np.count_nonzero(counts) or needs_unknown:
        others = chosen[chosen != unknown][: size - 1]
        if end_of_line not in others:
            others[-1] = end_of_line
        rest = counts.sum() - counts[others].sum()  # all that <unk> stands for
        chosen = np.insert(others, np.searchsorted(-counts[others], -rest, side="right"), unknown)
    ids = np.full(len(words), -1, dtype=np.int32)
    ids[chosen] = np.arange(len(chosen), dtype=np.int32)
    left_out = 0
    if ids[unknown] >= 0:
        left_out = int(np.count_nonzero(ids < 0))
        ids[ids < 0] = ids[unknown]
    return Vocabulary(tuple(words[number] for number in chosen), left_out), ids
