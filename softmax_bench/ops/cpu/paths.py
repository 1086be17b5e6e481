"""Losses of paths from the scores of their (token, row) pairs, all paths one after another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.ops.dispatch import by_device
from softmax_bench.ops.pairs import pair_scores

if TYPE_CHECKING:
    from softmax_bench.ops.paths import PathTable

_ABSENT = torch.iinfo(torch.int64).min


@by_device
def path_losses(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, paths: PathTable, target: Tensor
) -> Tensor:
    """See :func:`softmax_bench.ops.paths.path_losses`; differentiable."""
    starts, nodes, codes = _of_targets(paths, target)
    k = paths.rows_per_node
    if k == 1:
        scores = pair_scores(hidden, weight, bias, starts, nodes)
        losses = F.softplus((1 - 2 * codes.to(scores.dtype)) * scores)
    else:
        rows = nodes.unsqueeze(1) * k + torch.arange(k, device=nodes.device)
        scores = pair_scores(hidden, weight, bias, starts * k, rows.view(-1)).view(-1, k)
        absent = paths.children.index_select(0, nodes) == _ABSENT
        sides = scores.masked_fill(absent, -math.inf).log_softmax(1)
        losses = -sides.gather(1, codes.long().unsqueeze(1)).squeeze(1)
    return torch.segment_reduce(losses, "sum", offsets=starts, initial=0.0)


def _of_targets(paths: PathTable, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The start of each target's path, its nodes and its codes, with all paths concatenated."""
    begin = paths.starts.index_select(0, target)
    lengths = paths.starts.index_select(0, target + 1) - begin
    starts = F.pad(lengths.cumsum(0), (1, 0))
    total = int(starts[-1])
    shift = (begin - starts[:-1]).repeat_interleave(lengths, output_size=total)
    place = shift + torch.arange(total, device=target.device)
    nodes = paths.nodes.index_select(0, place).long()
    return starts, nodes, paths.codes.index_select(0, place)
