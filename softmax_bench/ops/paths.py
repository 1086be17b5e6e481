"""Losses of paths through a tree of decisions, each of which scores only its own path's nodes."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.cpu import paths as on_device


@dataclass(frozen=True)
class PathTable:
    """The path of every class, and what the host needs to know to size its buffers."""

    starts: Int[Tensor, "starts"]
    """Start of each class's path in ``nodes``, and the total number at the end."""
    nodes: Int[Tensor, "L"]
    """Inner nodes from the root down, for the paths of all classes one after another."""
    codes: Int[Tensor, "L"]
    """The side taken at each node."""
    children: Int[Tensor, "nodes k"]
    """As in :class:`~softmax_bench.classes.tree.Tree`; tells which sides a node has."""
    rows_per_node: int
    """1 for a decision between two sides by the sign of one score, k for a softmax of k scores."""
    level_sizes: tuple[int, ...]
    """Number of nodes at each depth."""

    @property
    def depth(self) -> int:
        """Number of nodes on the longest path."""
        return len(self.level_sizes)

    def most_rows(self, num_tokens: int) -> int:
        """Most distinct rows that the paths of this many tokens can touch."""
        return self.rows_per_node * sum(min(num_tokens, size) for size in self.level_sizes)


@untraced
def path_losses(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "R H"],
    bias: Float[Tensor, "R"] | None,
    paths: PathTable,
    target: Int[Tensor, "N"],
) -> Float[Tensor, "N"]:
    """``-log p`` of each token's path: the sum of that of the sides taken at its nodes.

    At a node with one row, the score is the log odds of side 1; at one with k rows, each side has a
    score, and missing sides are left out.

    Args:
        hidden: Hidden states.
        weight: ``rows_per_node`` rows per node; its gradient is row-sparse.
        bias: One offset per row; its gradient is row-sparse.
        paths: The paths of all classes.
        target: The class that ends each token's path.
    """
    return on_device.path_losses(hidden.to(weight.dtype), weight, bias, paths, target)
