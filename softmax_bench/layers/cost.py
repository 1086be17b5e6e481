"""What one training step of an output layer costs, derived from the layer's description."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

ID_BYTES = 8
"""Bytes of a row id in a row-sparse gradient."""


@dataclass(frozen=True)
class Cost:
    """Analytic cost of one training step of an output layer, forward and backward."""

    flops: float
    """Floating-point operations of the matrix products."""
    bytes: float
    """Fewest bytes that must move: operands and gradients once each, scores never."""
    parameters: int
    rows_touched: int
    """Mean number of rows that the step reads and updates, over targets and draws."""
    gradient_bytes: float
    """Bytes of the gradients after the step: numbers, and row ids of sparse ones."""


def step_cost(
    parameters: Iterable[nn.Parameter],
    row_sparse: Iterable[nn.Parameter],
    *,
    flops: float,
    rows_touched: float,
    hidden_numbers: int,
) -> Cost:
    """Cost of a step that reads every dense parameter, and the touched rows of row-sparse ones.

    A dense parameter is read and its gradient is written; the rows of a row-sparse one are also
    gathered. Hidden states are read and their gradient is written.

    Args:
        parameters: All parameters of the layer.
        row_sparse: The parameters with row-sparse gradients. If a parameter has blocks of rows
            (C, B, H), its gradient is sparse in the blocks.
        flops: Operations of the matrix products.
        rows_touched: Rows of each row-sparse parameter that get a gradient.
        hidden_numbers: Numbers in the hidden states.
    """
    parameters, sparse = list(parameters), list(row_sparse)
    block = max((p.shape[1:-1].numel() for p in sparse), default=1)
    dense_numbers, sparse_numbers, gradient_bytes = 0, 0.0, 0.0
    for parameter in parameters:
        if any(parameter is one for one in sparse):
            entries = min(rows_touched / block, parameter.shape[0])
            numbers = entries * parameter.shape[1:].numel()
            sparse_numbers += numbers
            gradient_bytes += numbers * parameter.element_size() + entries * ID_BYTES
        else:
            dense_numbers += parameter.numel()
            gradient_bytes += parameter.nbytes
    moved = 2.0 * dense_numbers + 3.0 * sparse_numbers + 2.0 * hidden_numbers
    return Cost(
        flops=flops,
        bytes=moved * parameters[0].element_size(),
        parameters=sum(parameter.numel() for parameter in parameters),
        rows_touched=round(rows_touched),
        gradient_bytes=gradient_bytes,
    )
