"""Draws from the softmax of each row of scores."""

from __future__ import annotations

from torch import Tensor


def draw(scores: Tensor) -> Tensor:
    """Draw one column per row: the argmax of score minus log of exponential noise (Gumbel-max)."""
    if not scores.numel():
        return scores.new_zeros(scores.shape[0]).long()
    return (scores - scores.new_empty(scores.shape).exponential_().log_()).argmax(1)
