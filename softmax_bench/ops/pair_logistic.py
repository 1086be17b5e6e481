"""Logistic losses on pairs: each token's own class against noise of its own."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.cpu import pair_logistic as on_device


@untraced
def pair_logistic(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    rows: Int[Tensor, "N K"],
    offset: Float[Tensor, "N K"],
    positive_weight: float = 1.0,
) -> Float[Tensor, "N"]:
    """``positive_weight softplus(-x_n0) + sum_{k>0} softplus(x_nk)`` of each token.

    Here ``x_nk = h_n . w_r + b_r + offset_nk`` with ``r = rows_nk``.

    Args:
        hidden: Hidden states.
        weight: Rows; the gradient is row-sparse.
        bias: One offset per row; the gradient is row-sparse.
        rows: The class of each token, then its noise.
        offset: Added to the scores.
        positive_weight: Weight of the first term.
    """
    return on_device.pair_logistic(
        hidden.to(weight.dtype), weight, bias, rows, offset, positive_weight
    )
