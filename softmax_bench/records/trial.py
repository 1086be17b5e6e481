"""What to run: everything that decides the outcome of a trial, and nothing else.

Two results are comparable exactly when the fields that should be equal are equal. This module
imports no torch: reports are drawn on machines that have none.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

GIVEN = "given"
"""What a trial has for an encoder where the hidden states are somebody's own."""
BPTT = 35
"""Time steps of a stream where only the number of a step's tokens is given."""


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
    tuned: str = ""
    """Options of the layer that tuning found, as a specification has them: ``"power=0.4"``."""
    initial_accumulator_value: float = 0.0
    """Where Adagrad's sums of squares start."""
    layer_rate: float = 1.0
    """Learning rate of the output layer, as a multiple of ``learning_rate``."""
    init_range: float | None = None
    """Weights start uniform between minus this and this; None for each part's own way."""
    schedule: str = "constant"
    """Of the learning rate: see :class:`softmax_bench.lm.Schedule`."""
    decay: float = 0.5
    """What ``"stall"`` and ``"epoch"`` multiply the rate by."""
    decay_after: int = 4
    """Passes over the text at the whole rate, for ``"epoch"``."""
    evaluations: int = 6
    """On a part of the validation text, at equal distances."""
    patience: int = 0
    """Evaluations without a better one after which training ends; 0 for never."""
    tuning: bool = False
    """Whether the model is evaluated on a part of the validation text alone: it was trained to find
    the best learning rate, and not to be compared with other layers."""
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
    corpus_sha256: str | None = None
    """Of the examples that targets are drawn by and class counts are of, where they are given;
    None for Zipf's law."""
    encoder: str | None = None
    """Whose step runs before each timed one; None for given hidden states, and in records from
    before one ran."""
    embedding_size: int | None = None
    """Of the encoder's word vectors; the hidden size where it is None."""
    num_layers: int = 1
    """Of the encoder."""
    bptt: int = BPTT
    """Time steps of the streams that the encoder reads."""


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


TRIALS: dict[str, type[Trial]] = {
    "train": TrainTrial,
    "speed": SpeedTrial,
    "ngram": NgramTrial,
    "fidelity": FidelityTrial,
}
"""By the kind that records name."""


def trial_kind(trial: Trial) -> str:
    """The name in :data:`TRIALS` of what a trial is."""
    return next(kind for kind, known in TRIALS.items() if isinstance(trial, known))


def trial_id(trial: Trial) -> str:
    """Identity of a trial: a hash of its whole configuration, the same on every machine.

    A field that did not exist when older records were written has the default that stands for
    what was done then. It is left out, so that those records keep their identity.
    """
    told = _told(trial)
    if isinstance(trial, FidelityTrial):  # the models of its first records had the field "tuned"
        told["model"] = _told(trial.model, always="tuned")
    canonical = msgspec.json.encode([type(trial).__name__, sorted(told.items())])
    return hashlib.sha256(canonical).hexdigest()[:16]


def _told(trial: Trial, always: str = "") -> dict[str, Any]:
    """The fields that are not at their defaults, in their order."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(trial)}
    fields: dict[str, Any] = msgspec.to_builtins(trial)
    return {
        name: value for name, value in fields.items() if name == always or value != defaults[name]
    }


def tuned_spec(layer: str, tuned: str) -> str:
    """The specification of a layer with the options that tuning found."""
    if not tuned:
        return layer
    name, opened, rest = layer.strip().partition("(")
    return f"{name}({tuned}, {rest}" if opened else f"{name}({tuned})"


def describe_trial(trial: Trial) -> str:
    """A title for people: what tells a trial from the others of its study, as a rule."""
    if isinstance(trial, NgramTrial):
        return f"{trial.order}-gram model of {trial.corpus} V={trial.vocab_size:,}"
    if isinstance(trial, SpeedTrial):
        return f"timing {trial.layer} V={trial.vocab_size:,}"
    if isinstance(trial, FidelityTrial):
        return f"fidelity of {trial.layer} V={trial.model.vocab_size:,}"
    return (
        f"{trial.layer} V={trial.vocab_size:,} lr={trial.learning_rate:g} seed={trial.seed} "
        f"{trial.max_tokens:,} tokens of {trial.corpus}"
    )
