"""The n-gram reference: modified interpolated Kneser-Ney smoothing, counted on arrays.

It shows what a language model that only counts reaches on the same tokens, which every neural model
should surpass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from softmax_bench.errors import SoftmaxBenchError

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]

_FALLBACK = np.array([0.0, 0.5, 1.0, 1.5])
"""Discounts for texts too small to estimate them, in which no class occurs once, or none twice."""


@dataclass(frozen=True)
class _Order:
    """The k-grams of one k: contexts of k-1 tokens, and the tokens that followed them."""

    keys: _Ints
    """``context * V + token`` in ascending order; the position of a key identifies its k-gram."""
    counts: _Ints
    """How often it occurred (highest order), or after how many different tokens (lower orders)."""
    discounts: _Floats
    """What is subtracted from counts of 0, 1, 2, and 3 or more."""
    totals: _Floats
    """(contexts,) sum of the counts after a context."""
    backed_off: _Floats
    """(contexts,) share of the probability left to the lower order."""


class KneserNey:
    """``p_k(w|h) = max(c(hw) - D(c(hw)), 0) / c(h) + gamma(h) p_{k-1}(w|h')``, down to ``1 / V``.

    ``h'`` is the context ``h`` without its first token, and ``D`` has one value each for counts of
    1, 2, and 3 or more. Orders below the highest count the contexts in which a k-gram occurs, not
    its occurrences. The text is preceded by ``eos_id``; contexts cross the ends of sentences, as
    those of the neural models do. Probabilities sum to 1 over the vocabulary.

    Source: Chen & Goodman 1999, equations 26 to 32.

    Args:
        tokens: Training text, ids below ``vocab_size``.
        vocab_size: V.
        eos_id: The token before the text.
        order: n: the longest context has n - 1 tokens.

    Raises:
        SoftmaxBenchError: The text is empty, or the order is below 1.
    """

    def __init__(
        self, tokens: npt.ArrayLike, *, vocab_size: int, eos_id: int, order: int = 5
    ) -> None:
        text = np.asarray(tokens, dtype=np.int64)
        if order < 1 or not text.size:
            raise SoftmaxBenchError(
                f"an n-gram model needs n of at least 1, not {order}, and a text, not {text.size} "
                "tokens"
            )
        self.vocab_size, self.eos_id, self.order = vocab_size, eos_id, order
        self._orders: list[_Order] = []
        contexts = 1  # the empty context
        grams = self._grams(text)
        for k, (keys, _, ids) in enumerate(grams, start=1):
            if k < order:  # a k-gram counts once for each longer one that ends in it
                _, last, _ = grams[k]
                endings = ids[last[last >= order - 1]]
            else:
                endings = ids[order - 1 :]
            self._orders.append(_order(keys, np.bincount(endings, minlength=keys.size),
                                       keys // vocab_size, contexts))  # fmt: skip
            contexts = keys.size

    def _padded(self, tokens: npt.ArrayLike) -> _Ints:
        before = np.full(self.order - 1, self.eos_id, dtype=np.int64)
        return np.concatenate([before, np.asarray(tokens, dtype=np.int64)])

    def _grams(self, text: _Ints) -> list[tuple[_Ints, _Ints, _Ints]]:
        """For k = 1, 2, ...: keys of the k-grams, their last positions, and which ends at each."""
        # Some k-grams end in the padding before the text; they are contexts and count nothing.
        padded = self._padded(text)
        grams = []
        context = np.zeros(padded.size, dtype=np.int64)  # the empty context before every token
        for k in range(1, self.order + 1):
            key = (context * self.vocab_size + padded)[k - 1 :]
            keys, from_end, backwards = np.unique(key[::-1], return_index=True, return_inverse=True)
            ids = np.concatenate([np.zeros(k - 1, dtype=np.int64), backwards[::-1]])
            grams.append((keys, padded.size - 1 - from_end, ids))
            context = np.concatenate([[0], ids[:-1]])
        return grams

    def log_prob(self, tokens: npt.ArrayLike) -> _Floats:
        """Natural logarithm of the probability of each token, given the preceding ones."""
        text = self._padded(tokens)
        probability = np.full(text.size, 1.0 / self.vocab_size)
        context = np.zeros(text.size, dtype=np.int64)  # -1: not seen in training
        for k, order in enumerate(self._orders, start=1):
            key = context * self.vocab_size + text
            place = np.searchsorted(order.keys, key).clip(max=order.keys.size - 1)
            seen = (order.keys[place] == key) & (context >= 0)
            count = np.where(seen, order.counts[place], 0)
            total = np.where(context >= 0, order.totals[context], 0)
            kept = count - order.discounts[count.clip(max=3)]
            mixed = kept / total.clip(min=1) + order.backed_off[context] * probability
            probability = np.where(total > 0, mixed, probability)
            gram = np.where(seen, place, -1)
            if k < self.order:
                # The context of the next order ends one token earlier.
                context = np.concatenate([[-1], gram[:-1]])
        return np.log(probability[self.order - 1 :])


def _order(keys: _Ints, counts: _Ints, context: _Ints, num_contexts: int) -> _Order:
    discounts = _discounts(counts)
    totals = np.bincount(context, weights=counts, minlength=num_contexts).astype(np.float64)
    taken = np.bincount(context, weights=discounts[counts.clip(max=3)], minlength=num_contexts)
    return _Order(keys, counts, discounts, totals, taken / totals.clip(min=1))


def _discounts(counts: _Ints) -> _Floats:
    n = np.bincount(counts.clip(max=5), minlength=5)
    if not (n[1] and n[2]):
        return _FALLBACK
    y = n[1] / (n[1] + 2 * n[2])
    taken = [r - (r + 1) * y * n[r + 1] / n[r] if n[r] else r / 2 for r in (1, 2, 3)]
    return np.array([0.0, *np.clip(taken, 0.0, [1, 2, 3])])
