"""Losses of a group of tokens, by a softmax over all classes of just these tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from softmax_bench.ops.all_classes import linear_cross_entropy, linear_nll
from softmax_bench.ops.dispatch import by_device

if TYPE_CHECKING:
    from softmax_bench.ops.groups import Groups


@by_device
def group_cross_entropy(
    hidden: Tensor,
    projection: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    groups: Groups,
    index: int,
) -> Tensor:
    """See :func:`softmax_bench.ops.groups.group_cross_entropy`."""
    tokens = _tokens(groups, index)
    projected = F.linear(hidden.index_select(0, tokens), projection)
    of_tokens = target.index_select(0, tokens), coefficient.index_select(0, tokens)
    return linear_cross_entropy(projected, weight, bias, *of_tokens)


@by_device
def group_nll(
    hidden: Tensor,
    projection: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    groups: Groups,
    index: int,
) -> Tensor:
    """See :func:`softmax_bench.ops.groups.group_nll`."""
    tokens = _tokens(groups, index)
    projected = F.linear(hidden.index_select(0, tokens), projection)
    nll, _ = linear_nll(projected, weight, bias, target.index_select(0, tokens))
    return nll.new_zeros(target.shape[0]).index_add(0, tokens, nll)


def _tokens(groups: Groups, index: int) -> Tensor:
    begin = int(groups.ends[index - 1]) if index else 0
    return groups.order[begin : int(groups.ends[index])]
