"""A generated language of any vocabulary size, whose true entropy is known exactly.

Words follow Zipf's law: word i (from 0) has probability proportional to 1 / (i + 1). Each belongs
to one of K classes, and classes follow a second-order Markov chain, a *mixture transition
distribution* (Raftery 1985)::

    p(c_t | c_t-1, c_t-2) = L A[c_t-1, c_t] + (1 - L) B[c_t-2, c_t]

A word is then drawn from its class in proportion to its frequency. A and B both have the Zipf
masses of the classes as their stationary distribution, so the marginal law of words is Zipf's,
whatever the classes do. Since the classes of past words are known, the probability of every word
given all preceding ones is a product of two numbers, and the best possible perplexity is known, not
estimated. To reach it, a model must learn the class of every word and two transition matrices, and
remember two words.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property

import numpy as np
import numpy.typing as npt

from softmax_bench.errors import SoftmaxBenchError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_VOCAB_SIZE = 10**7
_CLASSES = 64
_MIX = 0.6
"""Weight L of the nearer class."""
_PEAKEDNESS = 3.0
"""Standard deviation of the log-transitions, which controls how much there is to learn. At 3, the
context divides the perplexity by about 4 for large vocabularies.
"""


class SyntheticLanguage:
    """A stationary source over ``vocab_size`` words.

    Args:
        vocab_size: Number of words, from 2 to 10^7.
        seed: Determines the classes and transitions; not negative.

    Raises:
        SoftmaxBenchError: The vocabulary is too small or too large, or the seed is negative.
    """

    def __init__(self, vocab_size: int, seed: int = 0) -> None:
        if not 2 <= vocab_size <= MAX_VOCAB_SIZE:
            raise SoftmaxBenchError(
                f"the synthetic language has from 2 to {MAX_VOCAB_SIZE:,} words, not {vocab_size:,}"
            )
        if seed < 0:
            raise SoftmaxBenchError(f"the seed must be 0 or more, not {seed}")
        rng = np.random.default_rng([seed, vocab_size])
        self.vocab_size = vocab_size
        self.num_classes = min(_CLASSES, max(2, vocab_size // 4))
        self.word_probabilities = _zipf(vocab_size)
        # Each of the first K words has its own class, so that no class is empty.
        self.class_of = rng.integers(self.num_classes, size=vocab_size)
        self.class_of[: self.num_classes] = rng.permutation(self.num_classes)
        self.class_probabilities = np.bincount(
            self.class_of, self.word_probabilities, self.num_classes
        )
        self._near = self._transitions(rng)
        self._far = self._transitions(rng)

    def _transitions(self, rng: np.random.Generator) -> Floats:
        """A random stochastic matrix whose stationary distribution is that of the classes."""
        joint = np.exp(_PEAKEDNESS * rng.standard_normal((self.num_classes, self.num_classes)))
        target = self.class_probabilities
        # Sinkhorn scaling gives a joint distribution of (now, next) with both required margins.
        for _ in range(10_000):
            joint *= (target / joint.sum(axis=1))[:, None]
            columns = target / joint.sum(axis=0)
            joint *= columns
            if np.abs(columns - 1).max() < 1e-14:
                break
        return joint / joint.sum(axis=1, keepdims=True)

    @cached_property
    def _pair_probabilities(self) -> Floats:
        """Stationary probability of (class before last, last class)."""
        pairs = np.outer(self.class_probabilities, self.class_probabilities)
        transition = self.transition_given_pair
        for _ in range(10_000):
            following = np.einsum("ab,abc->bc", pairs, transition)
            if np.abs(following - pairs).sum() < 1e-15:
                break
            pairs = following
        return pairs / pairs.sum()

    @cached_property
    def transition_given_pair(self) -> Floats:
        """``p(c | last class b, class before last a)`` as [a, b, c]."""
        return _MIX * self._near[None, :, :] + (1 - _MIX) * self._far[:, None, :]

    def draw(self, num_tokens: int, rng: np.random.Generator) -> Ints:
        """Draw a text of ``num_tokens`` words from the stationary source."""
        classes = self._draw_classes(num_tokens, rng)
        order, running, first = self._words_by_class
        low, high = running[first[classes]], running[first[classes + 1]]
        place = np.searchsorted(running, low + rng.random(num_tokens) * (high - low), side="right")
        return order[np.clip(place - 1, first[classes], first[classes + 1] - 1)]

    @cached_property
    def _words_by_class(self) -> tuple[Ints, Floats, Ints]:
        """Words by class, running sums of their probabilities, and where each class starts."""
        # Bytes are sorted in linear time.
        order = np.argsort(self.class_of.astype(np.uint8), kind="stable")
        running = np.concatenate([[0.0], np.cumsum(self.word_probabilities[order])])
        sizes = np.bincount(self.class_of, minlength=self.num_classes)
        return order, running, np.concatenate([[0], np.cumsum(sizes)])

    def _draw_classes(self, num_tokens: int, rng: np.random.Generator) -> Ints:
        # One time step needs the previous one, so walk through plain lists, Python's fastest way.
        # All random numbers are drawn beforehand.
        classes = self.num_classes
        start = int(rng.choice(classes * classes, p=self._pair_probabilities.ravel()))
        before, last = divmod(start, classes)
        near, far = (np.cumsum(m[:, :-1], axis=1).tolist() for m in (self._near, self._far))
        nearer = (rng.random(num_tokens) < _MIX).tolist()
        uniform = rng.random(num_tokens).tolist()
        walk = [0] * num_tokens
        for time, number in enumerate(uniform):
            running = near[last] if nearer[time] else far[before]
            before, last = last, bisect_right(running, number)
            walk[time] = last
        return np.array(walk, dtype=np.int64)

    def log_prob(self, tokens: Ints) -> Floats:
        """Exact ``log p(w_t | all preceding words)`` of each word of a text, in nats.

        The text is assumed to begin in the stationary state: its first word has no context, and its
        second only the first.
        """
        classes = self.class_of[tokens]
        log_within = (
            np.log(self.word_probabilities[tokens]) - np.log(self.class_probabilities)[classes]
        )
        log_class = np.empty(len(tokens))
        pairs = self._pair_probabilities
        if len(tokens):
            log_class[0] = np.log(self.class_probabilities[classes[0]])
        if len(tokens) > 1:
            log_class[1] = np.log(pairs[classes[0], classes[1]] / pairs[classes[0]].sum())
        transition = self.transition_given_pair
        log_class[2:] = np.log(transition[classes[:-2], classes[1:-1], classes[2:]])
        return log_class + log_within


def _zipf(size: int) -> Floats:
    weights = 1.0 / np.arange(1, size + 1)
    return weights / weights.sum()
