"""Exact evaluation: the same for every output layer, however it was trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from softmax_bench.lm.model import LanguageModel
from softmax_bench.lm.streams import IGNORED, Streams


@dataclass(frozen=True)
class Quality:
    """How well a model predicts a text."""

    tokens: int
    """Predicted tokens."""
    nats: float
    """Mean negative log-probability, normalised over the whole vocabulary."""
    unnormalized_nats: float | None
    """The same by the scores alone, for layers that claim to be self-normalised."""
    log_z_mean: float | None
    log_z_sd: float | None
    """Of the log-normaliser over the text: 0 deviation would be perfect self-normalisation."""

    @property
    def perplexity(self) -> float:
        """``exp(nats)``; infinite where that overflows."""
        return _exp(self.nats)

    @property
    def unnormalized_perplexity(self) -> float | None:
        """``exp`` of the unnormalised nats."""
        return None if self.unnormalized_nats is None else _exp(self.unnormalized_nats)


@torch.no_grad()
def evaluate(model: LanguageModel, streams: Streams, window: int) -> Quality:
    """Predict every token of a text once.

    Memory is bounded: no step holds ``window x batch x V`` scores.
    """
    was_training = model.training
    model.eval()
    log_probs: list[Tensor] = []
    claims: list[Tensor] = []
    state = None
    for inputs, targets in streams.windows(window):
        hidden, state = model.hidden(inputs, state)
        kept = targets != IGNORED
        hidden, targets = hidden[kept], targets[kept]
        log_probs.append(model.layer.target_log_prob(hidden, targets).double())
        claim = model.layer.unnormalized_target_log_prob(hidden, targets)
        if claim is not None:
            claims.append(claim.double())
    model.train(was_training)
    log_prob = torch.cat(log_probs)
    nats = -float(log_prob.mean())
    if not claims:
        return Quality(log_prob.numel(), nats, None, None, None)
    claimed = torch.cat(claims)
    log_z = claimed - log_prob  # a score is the normalised log-probability plus log Z
    return Quality(
        tokens=log_prob.numel(),
        nats=nats,
        unnormalized_nats=-float(claimed.mean()),
        log_z_mean=float(log_z.mean()),
        log_z_sd=float(log_z.std(correction=0)),
    )


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
