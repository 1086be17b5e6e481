"""Scores of chosen (token, row) pairs: the sampled dense-dense product, and its gradients.

For ``P`` pairs the products cost 2PH flop forward and 4PH backward. Gathering both sides of every
pair would move 2PH numbers and, for the gradient, write PH more.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.cpu import pairs
from softmax_bench.ops.footprint import Amount, Footprint, row_sparse_bytes


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
        bias: One offset a row.
        starts: Where each token's pairs begin in ``rows``, and the total at the end.
        rows: The rows paired with each token, all pairs of a token together.
    """
    # In the weight's type: the sparse products know no lower one.
    operands = hidden.to(weight.dtype), weight, bias
    # MKL takes 32-bit indices; others it would copy.
    scores: Tensor = _PairScores.apply(*operands, starts.int(), rows.int())
    return scores


class _PairScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, starts: Tensor, rows: Tensor
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, starts, rows)
        return pairs.pair_scores(hidden, weight, bias, starts, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*pairs.pair_gradients(grad, *ctx.saved_tensors), None, None)


def pair_footprint(
    num_tokens: int, num_pairs: Amount, rows: Amount, width: int, size: int, *, bias: bool
) -> Footprint:
    """Bytes of :func:`pair_scores` where there are sparse products.

    In the backward a pair has its gradient twice, in order of tokens and of rows; and as integers
    its row, that once more sorted, where that was, the token, and room for the distinct row and
    its count.

    Args:
        num_tokens: N.
        num_pairs: P.
        rows: Distinct rows among them.
        width: H.
        size: Bytes of a number.
        bias: Whether there is one.
    """
    states = num_tokens * width * size
    gradients = row_sparse_bytes(rows, width, size, bias=bias)
    kept = num_pairs * 4
    return Footprint(
        forward=num_pairs * (2 * size + 12),
        kept=kept,
        backward=num_pairs * (2 * size + 32) + states + gradients,
        gradients=gradients,
        hidden=states,
    )
