"""Scores of selected (token, row) pairs: the sampled dense-dense product, and its gradients.

For ``P`` pairs the products cost 2PH flop forward and 4PH backward. Gathering both sides of every
pair would move 2PH numbers and, for the gradient, write PH more.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softmax_bench.ops.autograd import no_second_derivative
from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.cpu import pairs


@untraced
def pair_scores(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    starts: Int[Tensor, "N+1"],
    rows: Int[Tensor, "P"],
) -> Float[Tensor, "P"]:
    """Scores ``h_n . w_r + b_r`` of the pairs (n, r).

    Args:
        hidden: Hidden states.
        weight: Rows; the gradient is row-sparse and coalesced.
        bias: One offset per row.
        starts: Where each token's pairs begin in ``rows``, and the total at the end.
        rows: The rows paired with each token, all pairs of a token together.
    """
    # In the weight's dtype, because the sparse products support no lower one.
    operands = hidden.to(weight.dtype), weight, bias
    # MKL takes 32-bit indices and would copy others.
    scores: Tensor = _PairScores.apply(*operands, starts.int(), rows.int())
    return scores


@no_second_derivative
class _PairScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, starts: Tensor, rows: Tensor
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, starts, rows)
        return pairs.pair_scores(hidden, weight, bias, starts, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*pairs.pair_gradients(grad, *ctx.saved_tensors), None, None)
