"""Exact losses of groups of tokens, each with a softmax of its own: adaptive softmax's tails.

A tail projects the hidden states of its tokens to few dimensions and scores its classes with them.
Which tokens belong to a tail is known to the device that holds the targets. A GPU is not asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.cpu import groups as on_device


@dataclass(frozen=True)
class Groups:
    """Tokens sorted by group."""

    order: Int[Tensor, "N"]
    ends: Int[Tensor, "G"]
    """The end of each group in that order."""


@untraced
def group_tokens(group: Int[Tensor, "N"], num_groups: int) -> Groups:
    """The tokens of each group, in their order within it."""
    in_order, order = group.sort(stable=True)
    ids = torch.arange(num_groups, device=group.device)
    return Groups(order, torch.searchsorted(in_order, ids, right=True))


@untraced
def group_cross_entropy(
    hidden: Float[Tensor, "N H"],
    projection: Float[Tensor, "D H"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"] | None,
    target: Int[Tensor, "N"],
    coefficient: Float[Tensor, "N"],
    groups: Groups,
    index: int,
) -> Float[Tensor, ""]:
    """``sum_n coefficient_n loss_n`` over one group, the losses being :func:`group_nll`."""
    return on_device.group_cross_entropy(
        hidden, projection, weight, bias, target, coefficient, groups, index
    )


@untraced
def group_nll(
    hidden: Float[Tensor, "N H"],
    projection: Float[Tensor, "D H"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"] | None,
    target: Int[Tensor, "N"],
    groups: Groups,
    index: int,
) -> Float[Tensor, "N"]:
    """``-log softmax(W P h_n + b)[target_n]`` of each token in a group, 0 for all others.

    Memory is bounded for any number of tokens and classes.

    Args:
        hidden: Hidden states of all tokens.
        projection: The matrix P.
        weight: One row per class of the group.
        bias: One offset per class.
        target: Each token's class within the group; any number for tokens of other groups.
        groups: Which token belongs to which group.
        index: Number of the group.
    """
    return on_device.group_nll(hidden, projection, weight, bias, target, groups, index)
