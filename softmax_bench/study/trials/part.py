"""How much of the validation text a training can afford to be evaluated on again and again."""

from __future__ import annotations

from softmax_bench.records.trial import TrainTrial

SHARE = 0.25
"""Of the time of a training with a cheap output layer, for all evaluations of its curve."""
_CHEAP_ROWS = 1024
"""Rows of the output layer that a cheap one trains for each token."""
_LEAST_PRODUCTS = 5e9
"""Affordable even for the shortest training: a fraction of a second."""


def affordable_tokens(trial: TrainTrial, encoder_parameters: int = 0) -> int:
    """Tokens whose exact evaluation takes :data:`SHARE` of the training.

    Evaluation scores all classes, whatever training scores. Training is taken to be as cheap as
    that of a layer with few samples, so that all layers of one vocabulary are evaluated on the
    same words, and the number depends on the trial alone, not on the machine or the load: rates
    are compared on equal words, and interrupted training goes on as if it had not been.

    Args:
        trial: To be trained.
        encoder_parameters: None where the hidden states are given.
    """
    # For each token, a product for each parameter; in training, two more in the backward pass.
    trained = 3 * (encoder_parameters + _CHEAP_ROWS * trial.hidden_size)
    evaluated = encoder_parameters + trial.vocab_size * trial.hidden_size
    return round(max(SHARE * trial.max_tokens * trained, _LEAST_PRODUCTS) / evaluated) + 1
