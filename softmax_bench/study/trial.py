"""What to run: everything that decides the outcome of a trial, and nothing else.

Two results are comparable exactly when the fields that should be equal are equal. This module
imports no torch: reports are drawn on machines that have none.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec


class TrainTrial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One language model to train: everything that decides the outcome, and nothing else."""

    corpus: str
    """``"synthetic"`` or the name of the text's file or folder."""
    corpus_sha256: str
    """Hash of the token stream and vocabulary, so that equal names of unlike texts differ."""
    vocab_size: int
    layer: str
    """Specification of the output layer, as ``create_layer`` reads it."""
    encoder: str
    embedding_size: int
    hidden_size: int
    num_layers: int
    dropout: float
    tied: bool
    optimizer: str
    learning_rate: float
    clip_norm: float
    batch_size: int
    bptt: int
    max_tokens: int
    """Training budget in predicted tokens; the last step may overshoot by less than one batch."""
    seed: int
    threads: int
    device: str
    dtype: str


class SpeedTrial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One output layer to time alone, on random hidden states and Zipf-distributed targets."""

    layer: str
    vocab_size: int
    hidden_size: int
    num_tokens: int
    """Targets in one step: batch size times unrolled length."""
    optimizer: str
    clip_norm: float | None = None
    """None in records from before clipping was a phase of the step."""
    seed: int
    threads: int
    device: str
    dtype: str


class NgramTrial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One n-gram model of a text: what counting alone reaches on it."""

    corpus: str
    corpus_sha256: str
    vocab_size: int
    order: int


class FidelityTrial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One output layer to set against full softmax, on the hidden states of a trained model."""

    layer: str
    """Without ``num_samples`` where that is to be varied."""
    model: TrainTrial
    """The model with full softmax whose hidden states and rows are taken."""
    sample_counts: tuple[int, ...]
    """``num_samples`` at which the layer's gradient is measured, where it has that option."""
    num_states: int
    """Hidden states in the batch whose gradient is measured."""
    num_draws: int
    """Of that gradient."""
    learning_rates: tuple[float, ...]
    """Of which the layer, trained on the model's hidden states, gets the one it does best with."""


Trial = TrainTrial | SpeedTrial | NgramTrial | FidelityTrial


def trial_id(trial: Trial) -> str:
    """Identity of a trial: a hash of its whole configuration, the same on every machine."""
    kind = type(trial).__name__
    fields: dict[str, Any] = msgspec.to_builtins(trial)
    canonical = msgspec.json.encode([kind, sorted(fields.items())])
    return hashlib.sha256(canonical).hexdigest()[:16]
