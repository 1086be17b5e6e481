"""How many bytes the losses on a shared subset of classes hold at once.

The arguments are the same for all: ``num_tokens`` N, ``num_samples`` S and ``rows``, the distinct
ones among sample and targets, both as a mean, ``width`` H, ``size`` bytes of a number, and whether
there is a ``bias``.
"""

from __future__ import annotations

import math

from softmax_bench.ops.cpu.softmax_loss import class_tiles, loss_scratch, token_blocks
from softmax_bench.ops.footprint import TOKEN_BYTES, Amount, Footprint, row_sparse_bytes

_SAMPLE_BYTES = 44
"""Of a sampled class beside its row: id, count, expected count, offsets, gradient of the offset."""
_JOIN_BYTES = 8
"""Of a row of sample or targets: its place among the distinct ones."""


def subset_footprint(
    num_tokens: int, num_samples: Amount, rows: Amount, width: int, size: int, *, bias: bool
) -> Footprint:
    """Bytes of :func:`~softmax_bench.ops.subset_cross_entropy`."""
    workspace, scratch = loss_scratch(num_tokens, math.ceil(num_samples), width, size)
    return _fused(num_tokens, num_samples, rows, width, size, bias, workspace, scratch, gathered=1)


def logistic_footprint(
    num_tokens: int, num_samples: Amount, rows: Amount, width: int, size: int, *, bias: bool
) -> Footprint:
    """Bytes of :func:`~softmax_bench.ops.subset_logistic`."""
    samples = math.ceil(num_samples)
    block = next(iter(token_blocks(num_tokens, samples)), slice(0, 0))
    tiles = class_tiles(block.stop, samples)
    scores = block.stop * max((tile.stop - tile.start for tile in tiles), default=0)
    scaled = 2 * num_tokens * width * size  # hidden states for the scores, and for the gradient
    # Scores and losses of a tile; rows as they are, and as often as they were drawn.
    return _fused(
        num_tokens, num_samples, rows, width, size, bias, 2 * scores * size, scaled, gathered=2
    )


def _fused(
    num_tokens: int,
    num_samples: Amount,
    rows: Amount,
    width: int,
    size: int,
    bias: bool,
    workspace: Amount,
    scratch: Amount,
    gathered: int,
) -> Footprint:
    """Of a loss that makes its gradients in the forward: the pass over the sample, then the join.

    In both there are the gradient of the hidden states, the targets' rows, and the gradient of the
    sample's rows.
    """
    states = num_tokens * width * size
    of_sample = num_samples * width * size
    gradients = row_sparse_bytes(rows, width, size, bias=bias)
    passing = gathered * of_sample + scratch
    joining = states + gradients + _JOIN_BYTES * (num_samples + num_tokens)
    both = 2 * states + of_sample + _SAMPLE_BYTES * num_samples + TOKEN_BYTES * num_tokens
    return Footprint(
        forward=both + max(passing, joining),
        kept=gradients + states,
        backward=gradients + states,
        gradients=gradients,
        hidden=states,
        workspace=workspace,
    )


def scores_footprint(
    num_tokens: int, num_samples: Amount, rows: Amount, width: int, size: int, *, bias: bool
) -> Footprint:
    """Bytes of :func:`~softmax_bench.ops.subset_scores`, the scores themselves not counted.

    The rows of targets and sample are kept. In the backward their gradient comes to them, in two
    parts, which are then put together, and summed over rows that are the same.
    """
    states = num_tokens * width * size
    gathered = (num_tokens + num_samples) * width * size
    gradients = row_sparse_bytes(rows, width, size, bias=bias)
    return Footprint(
        forward=gathered,
        kept=gathered,
        backward=2 * gathered + 2 * states,
        gradients=gradients,
        hidden=states,
    )
