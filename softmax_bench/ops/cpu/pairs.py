"""Scores of pairs as sparse matrix products.

With the pairs as the pattern of a sparse ``N x V`` matrix, scores are a sampled product, and both
gradients are sparse-times-dense products that read each row in place. The gradient has one row per
distinct id, in order: it is coalesced by construction.
"""

from __future__ import annotations

import logging
import warnings
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.ops.cpu.exponentials import accumulator
from softmax_bench.ops.dispatch import by_device
from softmax_bench.ops.rows import row_sparse

_log = logging.getLogger(__name__)


@by_device
def pair_scores(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, starts: Tensor, rows: Tensor
) -> Tensor:
    """Scores (P,) of all pairs; ``starts`` and ``rows`` are int32."""
    scores = _sampled_product(hidden, weight, starts, rows)
    if bias is not None:
        scores += bias.index_select(0, rows)
    return scores


@by_device
def pair_gradients(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    rows: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients in hidden states, weight and bias, given that in the scores ``grad`` (P,)."""
    values = grad.to(accumulator(hidden.dtype))
    grad_hidden = _sparse_product(starts, rows, values, weight)
    # The same pairs row by row: the transposed matrix, with only the distinct rows.
    in_row_order, order = torch.sort(rows)
    touched, counts = torch.unique_consecutive(in_row_order, return_counts=True)
    row_starts = F.pad(counts.cumsum(0), (1, 0)).int()
    tokens = _token_of_pair(starts, rows.shape[0]).index_select(0, order)
    values = values.index_select(0, order)
    grad_rows = _sparse_product(row_starts, tokens, values, hidden)
    touched, num_rows = touched.long(), weight.shape[0]
    grad_bias = None
    if bias is not None:
        sums = torch.segment_reduce(values, "sum", offsets=row_starts)
        grad_bias = row_sparse(touched, sums.to(bias.dtype), num_rows)
    grad_weight = row_sparse(touched, grad_rows.to(weight.dtype), num_rows)
    return grad_hidden.to(hidden.dtype), grad_weight, grad_bias


def _token_of_pair(starts: Tensor, num_pairs: int) -> Tensor:
    lengths = starts.diff()
    tokens = torch.arange(lengths.shape[0], dtype=starts.dtype, device=starts.device)
    return tokens.repeat_interleave(lengths, output_size=num_pairs)


@cache
def _has_sparse_products(device_type: str) -> bool:
    """Whether torch multiplies CSR matrices here; on a CPU, this requires MKL."""
    if device_type == "cuda" or (device_type == "cpu" and torch.backends.mkl.is_available()):
        return True
    _log.warning(
        "no sparse products on this %s, so pairs are gathered, which is slower", device_type
    )
    return False


def _use_sparse_product(starts: Tensor, columns: Tensor, dense: Tensor) -> bool:
    if dense.dtype != accumulator(dense.dtype):
        return False  # the sparse products would sum in half precision
    # torch rejects a sparse matrix with more entries than positions, which repeated pairs can
    # cause.
    fits = columns.shape[0] <= (starts.shape[0] - 1) * dense.shape[0]
    return fits and _has_sparse_products(columns.device.type)


def _csr(starts: Tensor, columns: Tensor, values: Tensor, num_columns: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            starts,
            columns,
            values,
            (starts.shape[0] - 1, num_columns),
            check_invariants=False,
        )


def _sampled_product(hidden: Tensor, rows: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    """``hidden[n] . rows[c]`` for the pairs (n, c)."""
    dtype = accumulator(hidden.dtype)
    if columns.shape[0] == 0:
        return hidden.new_zeros(0, dtype=dtype)
    if _use_sparse_product(starts, columns, rows):
        zeros = torch.zeros(columns.shape[0], dtype=dtype, device=hidden.device)
        pattern = _csr(starts, columns, zeros, rows.shape[0])
        return torch.sparse.sampled_addmm(pattern, hidden, rows.t()).values()
    tokens = _token_of_pair(starts, columns.shape[0])
    parts = [
        torch.linalg.vecdot(hidden.index_select(0, t).to(dtype), rows.index_select(0, c).to(dtype))
        for t, c in zip(tokens.split(_GATHERED_PAIRS), columns.split(_GATHERED_PAIRS), strict=True)
    ]
    return torch.cat(parts)


_GATHERED_PAIRS = 2**14
"""Most pairs gathered at once without a sparse product, which bounds the memory of the slow path.
"""


def _sparse_product(starts: Tensor, columns: Tensor, values: Tensor, dense: Tensor) -> Tensor:
    """The CSR matrix (starts, columns, values) times ``dense``."""
    if columns.shape[0] == 0:
        return dense.new_zeros(starts.shape[0] - 1, dense.shape[1])
    if _use_sparse_product(starts, columns, dense):
        # Not ``csr @ dense``, which fills and copies the result at a higher cost than the product
        # itself.
        product = dense.new_empty(starts.shape[0] - 1, dense.shape[1])
        return product.addmm_(_csr(starts, columns, values, dense.shape[0]), dense, beta=0)
    tokens = _token_of_pair(starts, columns.shape[0])
    product = values.new_zeros(starts.shape[0] - 1, dense.shape[1])
    for t, c, v in zip(
        tokens.split(_GATHERED_PAIRS),
        columns.split(_GATHERED_PAIRS),
        values.split(_GATHERED_PAIRS),
        strict=True,
    ):
        product.index_add_(0, t, dense.index_select(0, c) * v.unsqueeze(1))
    return product
