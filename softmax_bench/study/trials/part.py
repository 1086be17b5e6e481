"""How much of the validation text training can afford to be evaluated on repeatedly."""

from __future__ import annotations

from softmax_bench.records.trial import TrainTrial

SHARE = 0.25
"""Share of a training with a cheap output layer that all evaluations of its curve may take."""
_CHEAP_ROWS = 1024
"""Rows of the output layer that a cheap layer trains per token."""
_LEAST_PRODUCTS = 5e9
"""Affordable even in the shortest training: a fraction of a second."""


def affordable_tokens(trial: TrainTrial, encoder_parameters: int = 0) -> int:
    """Number of tokens whose exact evaluation takes :data:`SHARE` of the training.

    Evaluation scores all classes, whatever training scores. Training is assumed to be as cheap as
    that of a layer with few samples, so that all layers of one vocabulary are evaluated on the same
    words. The number depends only on the trial, not on the machine or its load, so that rates are
    compared on equal words and interrupted training resumes exactly.

    Args:
        trial: The trial to be trained.
        encoder_parameters: None if the hidden states are given.
    """
    # Per token, each parameter takes one product, and two more in the backward pass.
    trained = 3 * (encoder_parameters + _CHEAP_ROWS * trial.hidden_size)
    evaluated = encoder_parameters + trial.vocab_size * trial.hidden_size
    return round(max(SHARE * trial.max_tokens * trained, _LEAST_PRODUCTS) / evaluated) + 1
