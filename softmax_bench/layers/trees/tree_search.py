"""Inference in a tree of decisions: all leaves, the best leaves, or a random leaf."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from softmax_bench.classes.tree import ABSENT
from softmax_bench.layers.gumbel import draw

Sides = Callable[[Tensor, Tensor], Tensor]
"""Log-probabilities (M, k) of the sides of nodes (M,) at hidden states (M, H)."""


def leaf_log_probs(sides: Tensor, children: Tensor, levels: list[Tensor]) -> Tensor:
    """Log-probabilities of all leaves (N, V) from those of the sides of all nodes (N, nodes, k).

    One sweep over the levels adds each decision to the log-probability of its parent.
    """
    tokens, nodes = sides.shape[:2]
    reached = sides.new_zeros(tokens, 1)
    leaves = [sides.new_zeros(tokens, 1)] if nodes == 0 else []
    order = [children.new_zeros(1)] if nodes == 0 else []
    for level in levels:
        nodes_here = level.to(children.device)
        below = children.index_select(0, nodes_here).reshape(-1)
        arrived = (reached.unsqueeze(-1) + sides.index_select(1, nodes_here)).flatten(1)
        leaf = _is_leaf(below).nonzero().squeeze(1)
        inner = (below >= 0).nonzero().squeeze(1)
        leaves.append(arrived.index_select(1, leaf))
        order.append(-below.index_select(0, leaf) - 1)
        # Nodes of the next level are in ascending order.
        inner = inner.index_select(0, below.index_select(0, inner).argsort())
        reached = arrived.index_select(1, inner)
    place = torch.cat(order).argsort()
    return torch.cat(leaves, 1).index_select(1, place)


def _is_leaf(below: Tensor) -> Tensor:
    return (below < 0) & (below != ABSENT)


def topk(hidden: Tensor, sides: Sides, children: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` most probable leaves, exactly, scoring only nodes that can lead to one.

    A beam of width k first finds k good leaves; the worst of them is a lower bound for the search.
    Then all nodes whose own probability reaches that bound are opened, level by level. A node's
    probability is an upper bound for every leaf below it, so none is missed.
    """
    tokens = hidden.shape[0]
    bound = hidden.new_full((tokens,), -math.inf)
    found = _search(hidden, sides, children, k, bound, beam=True)
    if tokens:
        # Rounding differs between the passes, so leave the bound a little slack.
        bound = found[0][:, -1] - 1e-4
    return _search(hidden, sides, children, k, bound, beam=False)


def _search(
    hidden: Tensor,
    sides: Sides,
    children: Tensor,
    k: int,
    bound: Tensor,
    *,
    beam: bool,
) -> tuple[Tensor, Tensor]:
    tokens = hidden.shape[0]
    token = torch.arange(tokens, device=hidden.device)
    node = torch.zeros_like(token)
    reached = hidden.new_zeros(tokens)
    best = hidden.new_full((tokens, k), -math.inf)
    best_leaf = node.new_zeros(tokens, k)
    if children.shape[0] == 0:
        return reached.unsqueeze(1), best_leaf
    while token.numel():
        decided = sides(hidden.index_select(0, token), node)
        arrived = (reached.unsqueeze(1) + decided).view(-1)
        below = children.index_select(0, node).view(-1)
        token = token.repeat_interleave(children.shape[1])
        leaf = _is_leaf(below)
        best, best_leaf = _merge(
            best, best_leaf, token[leaf], arrived[leaf], -below[leaf] - 1, tokens, k
        )
        alive = (below >= 0) & (arrived >= bound[token]) & (arrived > best[token, -1])
        token, node, reached = token[alive], below[alive], arrived[alive]
        if beam:
            kept = _best_per_token(token, reached, k)
            token, node, reached = token[kept], node[kept], reached[kept]
    return best, best_leaf


def _best_per_token(token: Tensor, value: Tensor, k: int) -> Tensor:
    """Positions of each token's ``k`` largest values."""
    by_value = value.argsort(descending=True)
    order = by_value.index_select(0, token.index_select(0, by_value).argsort(stable=True))
    sorted_token = token.index_select(0, order)
    rank = torch.arange(order.shape[0], device=token.device) - torch.searchsorted(
        sorted_token, sorted_token
    )
    return order[rank < k]


def _merge(
    best: Tensor, best_leaf: Tensor, token: Tensor, value: Tensor, leaf: Tensor, tokens: int, k: int
) -> tuple[Tensor, Tensor]:
    """Each token's ``k`` best among the leaves so far and new ones."""
    if not token.numel():
        return best, best_leaf
    kept = _best_per_token(token, value, k)
    token, value, leaf = token[kept], value[kept], leaf[kept]
    column = torch.arange(token.shape[0], device=token.device) - torch.searchsorted(token, token)
    new = best.new_full((tokens, k), -math.inf)
    new_leaf = best_leaf.new_zeros(tokens, k)
    new[token, column] = value
    new_leaf[token, column] = leaf
    merged, place = torch.cat([best, new], 1).topk(k)
    return merged, torch.cat([best_leaf, new_leaf], 1).gather(1, place)


def sample(hidden: Tensor, sides: Sides, children: Tensor) -> Tensor:
    """Draw a leaf for each token by deciding at one node after another."""
    token = torch.arange(hidden.shape[0], device=hidden.device)
    drawn = torch.zeros_like(token)
    node = torch.zeros_like(token)
    if children.shape[0] == 0:
        return drawn
    while token.numel():
        side = draw(sides(hidden.index_select(0, token), node))
        below = children[node, side]
        arrived = below < 0
        drawn[token[arrived]] = -below[arrived] - 1
        token, node = token[~arrived], below[~arrived]
    return drawn
