"""Scores of a subset of classes that all tokens share, differentiated by autograd.

The fused losses of :mod:`softmax_bench.ops.shared_sample` never store N x S scores, but must know
each token's weight in the loss beforehand. Any other loss on the same scores uses this.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.ops.cpu.exponentials import accumulator
from softmax_bench.ops.embedding import embed_rows


def subset_scores(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    target: Int[Tensor, "N"],
    rows: Int[Tensor, "S"],
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N S"]]:
    """Score of each token's own class, and of the shared classes ``rows``.

    The gradient of ``weight`` and ``bias`` is row-sparse and coalesced. Scores of half-precision
    operands are float32.
    """
    ids = torch.cat([target, rows])
    own_rows, shared = embed_rows(weight, ids).split([target.shape[0], rows.shape[0]])
    dtype = accumulator(hidden.dtype)
    own = torch.linalg.vecdot(hidden.to(dtype), own_rows.to(dtype))
    scores = F.linear(hidden, shared.to(hidden.dtype)).to(dtype)
    if bias is not None:
        own_bias, shared_bias = embed_rows(bias, ids).split([target.shape[0], rows.shape[0]])
        own, scores = own + own_bias, scores + shared_bias
    return own, scores
