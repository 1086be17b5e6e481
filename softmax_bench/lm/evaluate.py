"""Exact evaluation, which is the same for every output layer, however it was trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from softmax_bench.lm.model import LanguageModel
from softmax_bench.lm.streams import IGNORED, Streams
from softmax_bench.records.result import FrequencyBand

BANDS = (0, 2, 10, 100, 1000)
"""Least number of occurrences in the training text of the words of each band."""
BLOCKS = 200
"""Number of stretches of a text with separate sums of nats, for comparing models on equal words."""


@dataclass(frozen=True)
class Quality:
    """How well a model predicts a text."""

    tokens: int
    """Predicted tokens."""
    nats: float
    """Mean negative log-probability, normalised over the whole vocabulary."""
    unnormalized_nats: float | None = None
    """The same by the raw scores, for layers that claim to be self-normalised."""
    log_z_mean: float | None = None
    log_z_sd: float | None = None
    """Standard deviation of the log-normaliser over the text: 0 is perfect self-normalisation."""
    block_nats: tuple[float, ...] = ()
    """Sums over :data:`BLOCKS` nearly equal stretches."""
    bands: tuple[FrequencyBand, ...] = ()
    """Quality by word frequency; empty if counts were not given."""

    @property
    def perplexity(self) -> float:
        """``exp(nats)``, or infinity if that overflows."""
        return _exp(self.nats)

    @property
    def unnormalized_perplexity(self) -> float | None:
        """``exp`` of the unnormalised nats."""
        return None if self.unnormalized_nats is None else _exp(self.unnormalized_nats)


@torch.no_grad()
def evaluate(
    model: LanguageModel, streams: Streams, window: int, class_counts: Tensor | None = None
) -> Quality:
    """Predict every token of a text once.

    Memory is bounded: no step holds ``window x batch x V`` scores.

    Args:
        model: The model; it is in evaluation mode meanwhile.
        streams: The text.
        window: Time steps evaluated at once.
        class_counts: (V,) occurrences in the training text, for quality by frequency.
    """
    was_training = model.training
    model.eval()
    log_probs: list[Tensor] = []
    claims: list[Tensor] = []
    words: list[Tensor] = []
    state = None
    for inputs, targets in streams.windows(window):
        hidden, state = model.hidden(inputs, state)
        kept = targets != IGNORED
        hidden, targets = hidden[kept], targets[kept]
        log_probs.append(model.layer.target_log_prob(hidden, targets).double())
        words.append(targets)
        claim = model.layer.unnormalized_target_log_prob(hidden, targets)
        if claim is not None:
            claims.append(claim.double())
    model.train(was_training)
    log_prob = torch.cat(log_probs)
    quality = summarise_log_probs(log_prob, torch.cat(words), class_counts)
    if not claims:
        return quality
    claimed = torch.cat(claims)
    log_z = claimed - log_prob  # a score is the normalised log-probability plus log Z
    return replace(
        quality,
        unnormalized_nats=-float(claimed.mean()),
        log_z_mean=float(log_z.mean()),
        log_z_sd=float(log_z.std(correction=0)),
    )


def summarise_log_probs(
    log_prob: Tensor, words: Tensor, class_counts: Tensor | None = None
) -> Quality:
    """Quality from the log-probability of each word of a text, in float64."""
    blocks = log_prob.tensor_split(min(BLOCKS, max(1, log_prob.numel())))
    return Quality(
        tokens=log_prob.numel(),
        nats=-float(log_prob.mean()),
        block_nats=tuple(-float(block.sum()) for block in blocks),
        bands=() if class_counts is None else _bands(log_prob, class_counts[words]),
    )


def _bands(log_prob: Tensor, counts: Tensor) -> tuple[FrequencyBand, ...]:
    bands = []
    for low, above in zip(BANDS, [*BANDS[1:], None], strict=True):
        inside = (counts >= low) & (True if above is None else counts < above)
        if inside.any():
            high = None if above is None else above - 1
            nats = -float(log_prob[inside].mean())
            bands.append(FrequencyBand(low=low, high=high, tokens=int(inside.sum()), nats=nats))
    return tuple(bands)


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
