"""Losses of paths through a tree of decisions: each scores the nodes on its own path only."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.cpu import paths as on_device


@dataclass(frozen=True)
class PathTable:
    """The path of every class, and what of it the host must know to size its buffers."""

    starts: Int[Tensor, "starts"]
    """Where the path of each class begins in ``nodes``, and their number at the end."""
    nodes: Int[Tensor, "L"]
    """Inner nodes from the root down, the paths of all classes one after another."""
    codes: Int[Tensor, "L"]
    """The side taken at each node."""
    children: Int[Tensor, "nodes k"]
    """As in :class:`~softmax_bench.classes.tree.Tree`: tells which sides a node has."""
    rows_per_node: int
    """1 for a decision between two sides by the sign of one score, k for a softmax of k scores."""
    level_sizes: tuple[int, ...]
    """Nodes at each depth."""

    @property
    def depth(self) -> int:
        """Nodes on the longest path."""
        return len(self.level_sizes)

    def most_rows(self, num_tokens: int) -> int:
        """Most distinct rows that the paths of so many tokens can meet."""
        return self.rows_per_node * sum(min(num_tokens, size) for size in self.level_sizes)


@untraced
def path_losses(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "R H"],
    bias: Float[Tensor, "R"] | None,
    paths: PathTable,
    target: Int[Tensor, "N"],
) -> Float[Tensor, "N"]:
    """``-log p`` of each token's path: the sum over its nodes of that of the side taken.

    At a node with one row the score is the log odds of side 1; at one with k rows each side has a
    score, and those that the node lacks are left out.

    Args:
        hidden: Hidden states.
        weight: ``rows_per_node`` rows a node; its gradient is row-sparse.
        bias: One offset a row; its gradient is row-sparse.
        paths: Of all classes.
        target: The class that ends each token's path.
    """
    return on_device.path_losses(hidden.to(weight.dtype), weight, bias, paths, target)
