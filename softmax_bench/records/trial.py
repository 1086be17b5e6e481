"""The definition of a trial: everything that determines its outcome, and nothing else.

Two results are comparable if and only if the fields that should be equal are equal. This module
does not import torch, because reports are made on machines without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

GIVEN = "given"
"""The encoder of trials on given hidden states."""
BPTT = 35
"""Time steps of a stream if only the number of tokens per step is given."""
CLIP_NORM = 0.5
"""Maximum norm of all gradients together, where none is given. Noise that a batch shares has a rare
gradient with a norm above 1, and one such step can set NCE back for good. At 0.5, others lose at
most 0.2 % (``results/optimizer``).
"""


class TrainTrial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One language model to train: everything that determines the outcome, and nothing else."""

    corpus: str
    """``"synthetic"`` or the name of the text's file or folder."""
    corpus_sha256: str
    """Hash of the token stream and vocabulary, so that different texts of the same name differ."""
    vocab_size: int
    layer: str
    """Specification of the output layer, as parsed by ``create_layer``."""
    encoder: str
    embedding_size: int
    hidden_size: int
    num_layers: int
    dropout: float
    tied: bool
    optimizer: str
    learning_rate: float
    tuned: str = ""
    """Options of the layer found by tuning, as in a specification: ``"power=0.4"``."""
    initial_accumulator_value: float = 0.0
    """Start of Adagrad's sums of squares."""
    layer_rate: float = 1.0
    """Learning rate of the output layer, relative to ``learning_rate``."""
    init_range: float | None = None
    """Weights start uniformly distributed between minus this and this; None for each part's own
    initialisation.
    """
    schedule: str = "constant"
    """Learning rate schedule: see :class:`softmax_bench.lm.Schedule`."""
    decay: float = 0.5
    """Factor by which ``"stall"`` and ``"epoch"`` multiply the rate."""
    decay_after: int = 4
    """Passes over the text at the full rate, for ``"epoch"``."""
    warmup_tokens: int = 0
    """Tokens over which the rate rises from zero; at most a tenth of the budget."""
    evaluations: int = 6
    """Number of evaluations on a part of the validation text, at equal intervals."""
    patience: int = 0
    """Consecutive evaluations without improvement after which training stops; 0 for never."""
    tuning: bool = False
    """Whether the model is evaluated only on a part of the validation text, because it was trained
    to find the best learning rate and not to be compared with other layers.
    """
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
    """Number of targets in one step: batch size times unrolled length."""
    optimizer: str
    clip_norm: float | None = None
    """None in records from before clipping was a phase of the step."""
    seed: int
    threads: int
    device: str
    dtype: str
    corpus_sha256: str | None = None
    """Hash of the examples whose classes determine targets and counts, if they are given; None for
    Zipf's law.
    """
    encoder: str | None = None
    """Encoder whose step precedes each timed one; None for given hidden states, and in records from
    before there was one.
    """
    embedding_size: int | None = None
    """Size of the encoder's word vectors; the hidden size if None."""
    num_layers: int = 1
    """Number of layers of the encoder."""
    bptt: int = BPTT
    """Time steps of the streams that the encoder reads."""


class NgramTrial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An n-gram model of a text, which shows what counting alone achieves."""

    corpus: str
    corpus_sha256: str
    vocab_size: int
    order: int
    max_tokens: int | None = None
    """Counts only the tokens that a training of this budget reads; the whole text if None."""
    batch_size: int = 1
    """Number of streams in which such a training reads the text."""


class FidelityTrial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One output layer to compare with full softmax, on the hidden states of a trained model."""

    layer: str
    """Without ``num_samples``, if that is varied."""
    model: TrainTrial
    """The full-softmax model that provides hidden states and rows."""
    sample_counts: tuple[int, ...]
    """Values of ``num_samples`` at which the layer's gradient is measured, if it has that option.
    """
    num_states: int
    """Number of hidden states in the batch whose gradient is measured."""
    num_draws: int
    """Number of draws of that gradient."""
    learning_rates: tuple[float, ...]
    """Learning rates to try; the layer, trained on the model's hidden states, gets the best one."""


Trial = TrainTrial | SpeedTrial | NgramTrial | FidelityTrial


TRIALS: dict[str, type[Trial]] = {
    "train": TrainTrial,
    "speed": SpeedTrial,
    "ngram": NgramTrial,
    "fidelity": FidelityTrial,
}
"""Types of trials by the kind that records name."""


def trial_kind(trial: Trial) -> str:
    """The name of a trial's type in :data:`TRIALS`."""
    return next(kind for kind, known in TRIALS.items() if isinstance(trial, known))


def trial_id(trial: Trial) -> str:
    """Identity of a trial: a hash of its whole configuration, the same on every machine.

    A field that did not exist when older records were written has a default that stands for what
    was done then. Default values are left out, so that those records keep their identity.
    """
    fields = _told(trial)
    if isinstance(trial, FidelityTrial):  # the models of its first records had the field "tuned"
        fields["model"] = _told(trial.model, always="tuned")
    canonical = msgspec.json.encode([type(trial).__name__, sorted(fields.items())])
    return hashlib.sha256(canonical).hexdigest()[:16]


def _told(trial: Trial, always: str = "") -> dict[str, Any]:
    """The fields that differ from their defaults, in order."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(trial)}
    fields: dict[str, Any] = msgspec.to_builtins(trial)
    return {
        name: value for name, value in fields.items() if name == always or value != defaults[name]
    }


_LEVEL = 0.01
"""Nats a token by which tuning does not tell two trials apart."""


def preferred(nats: Mapping[tuple[float, str], float]) -> tuple[float, str]:
    """The learning rate and options to use, given the nats after tuning with each.

    It is the lowest rate of those that are level with the best: where two were level after half of
    the tokens, the lower one was better at the end (``results/books``).
    """
    level = min(nats.values()) + _LEVEL
    return min((trial for trial in nats if nats[trial] <= level), key=lambda t: (t[0], nats[t]))


def tuned_spec(layer: str, tuned: str) -> str:
    """The specification of a layer including the options found by tuning."""
    if not tuned:
        return layer
    name, opened, rest = layer.strip().partition("(")
    return f"{name}({tuned}, {rest}" if opened else f"{name}({tuned})"


def ngram_name(order: int, max_tokens: int | None) -> str:
    """Name of an n-gram model, which says what it has counted."""
    part = "whole text" if max_tokens is None else f"{max_tokens:,} tokens"
    return f"{order}-gram model, {part}"


def describe_trial(trial: Trial) -> str:
    """A readable title, which usually distinguishes the trial from the others of its study."""
    if isinstance(trial, NgramTrial):
        part = "" if trial.max_tokens is None else f" {trial.max_tokens:,} tokens"
        return f"{trial.order}-gram model of {trial.corpus} V={trial.vocab_size:,}{part}"
    if isinstance(trial, SpeedTrial):
        return f"timing {trial.layer} V={trial.vocab_size:,}"
    if isinstance(trial, FidelityTrial):
        return f"fidelity of {trial.layer} V={trial.model.vocab_size:,}"
    return (
        f"{trial.layer} V={trial.vocab_size:,} lr={trial.learning_rate:g} seed={trial.seed} "
        f"{trial.max_tokens:,} tokens of {trial.corpus}"
    )
