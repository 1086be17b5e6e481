"""What one training step of an output layer costs, from what the layer says of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

ID_BYTES = 8
"""Of the id of a row in a row-sparse gradient."""


@dataclass(frozen=True)
class Cost:
    """Analytic cost of one training step of an output layer, forward and backward."""

    flops: float
    """Floating-point operations of the matrix products."""
    bytes: float
    """Fewest bytes to move: operands and gradients once each, scores never."""
    parameters: int
    rows_touched: int
    """Rows of the parameters that the step reads and updates, as a mean over targets and draws."""
    gradient_bytes: float
    """Of the parameters' gradients after the step: numbers, and ids of the rows of sparse ones."""


def step_cost(
    parameters: Iterable[nn.Parameter],
    row_sparse: Iterable[nn.Parameter],
    *,
    flops: float,
    rows_touched: float,
    hidden_numbers: int,
) -> Cost:
    """Of a step that reads every dense parameter, and of row-sparse ones the rows it touches.

    A dense parameter is read and its gradient written; of a row-sparse one the rows are gathered as
    well. Hidden states are read and their gradient written.

    Args:
        parameters: All of the layer's.
        row_sparse: Those of them whose gradients are row-sparse. Where a parameter has blocks of
            rows (C, B, H), its gradient is sparse in the blocks.
        flops: Of the matrix products.
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
