"""Shared by all hierarchical layers: a tree, its paths, and inference by walking it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softmax_bench.classes.counts import positive_counts
from softmax_bench.classes.noise import expected_distinct
from softmax_bench.classes.tree import ABSENT, Tree
from softmax_bench.layers.base import OutputLayer
from softmax_bench.layers.options import CommonOptions
from softmax_bench.layers.trees import tree_search
from softmax_bench.ops import PathTable, keep_coalesced, path_losses


class TreeSoftmax(OutputLayer):
    """``p(w|h)`` as the product of decisions at the nodes on the path to w.

    Each decision is a distribution over a node's children, so the products sum to one over the
    leaves. Training by exact likelihood, and exact evaluation, therefore score only the nodes on
    the targets' paths. ``weight`` and ``bias`` have ``rows_per_node`` rows per node.

    Args:
        tree: Its leaves are the class ids, in any order. The state dict includes it.
        rows_per_node: Number of rows that a decision takes.
    """

    bias: nn.Parameter | None
    tree: Tensor
    path_starts: Tensor
    path_nodes: Tensor
    path_codes: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        tree: Tree,
        rows_per_node: int,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        self.rows_per_node = rows_per_node
        device, dtype = common.get("device"), common.get("dtype")
        rows = tree.children.shape[0] * rows_per_node
        self.weight = nn.Parameter(torch.empty(rows, in_features, device=device, dtype=dtype))
        if common.get("bias", True):
            self.bias = nn.Parameter(torch.empty(rows, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.register_buffer("tree", torch.from_numpy(tree.children))
        mass = self._set_tree(tree)
        self.to(self.weight.device)
        self.reset_parameters(mass)
        for parameter in self.row_sparse_parameters():
            keep_coalesced(parameter)

    def _set_tree(self, tree: Tree) -> Tensor:
        """Set the tree; return the class counts below each side (nodes, k) of its nodes."""
        paths = tree.paths()
        # Derived from the tree, so not part of the state dict.
        for name, array in (
            ("path_starts", paths.starts),
            ("path_nodes", paths.nodes),
            ("path_codes", paths.codes),
        ):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)
        self._levels = [torch.from_numpy(level) for level in tree.levels]
        self._pairs = self._mean_pairs(torch.from_numpy(paths.starts).diff())
        mass = self._mass(tree)
        total = positive_counts(self._counts, self.num_classes).sum()
        self._node_shares = mass.sum(1).numpy() / total
        return mass

    def _mean_pairs(self, depths: Tensor) -> float:
        """Mean number of scores per target, by the counts: rows of the nodes on its path."""
        shares = torch.from_numpy(positive_counts(self._counts, self.num_classes))
        return float(depths.double() @ (shares / shares.sum())) * self.rows_per_node

    def _mass(self, tree: Tree) -> Tensor:
        counts = torch.from_numpy(positive_counts(self._counts, self.num_classes))
        mass = torch.zeros(tree.children.shape, dtype=torch.float64, device="cpu")
        of_node = torch.zeros(tree.children.shape[0], dtype=torch.float64, device="cpu")
        children = torch.from_numpy(tree.children)
        for level in reversed(self._levels):
            below = children[level]
            of_leaf = counts[torch.where(below < 0, -(below.clamp(min=-counts.shape[0])) - 1, 0)]
            sides = torch.where(below < 0, of_leaf, of_node[below.clamp(min=0)])
            mass[level] = sides.masked_fill(below == ABSENT, 0.0)
            of_node[level] = mass[level].sum(1)
        return mass

    def reset_parameters(self, mass: Tensor) -> None:
        """Small uniform rows; biases at the unigram distribution.

        Args:
            mass: Count of the classes below each side, of shape (nodes, k).
        """
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            with torch.no_grad():
                self.bias.copy_(self._bias_of_shares(mass).view(-1))

    @abstractmethod
    def _bias_of_shares(self, mass: Tensor) -> Tensor:
        """Offsets (nodes, rows_per_node) with which each node decides in proportion to ``mass``."""

    @abstractmethod
    def _decide(self, scores: Tensor, node: Tensor) -> Tensor:
        """Log-probabilities (..., M, k) of the sides of nodes (M,) with scores (..., M, rows)."""

    def row_sparse_parameters(self) -> Iterator[nn.Parameter]:
        """Weight and bias: a step touches the nodes on its targets' paths."""
        if self.sparse:
            yield from (p for p in (self.weight, self.bias) if p is not None)

    def _token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        paths = PathTable(
            self.path_starts, self.path_nodes, self.path_codes, self.tree,
            self.rows_per_node, tuple(map(len, self._levels)),
        )  # fmt: skip
        return path_losses(hidden, *self._trained(self.weight, self.bias), paths, target)

    def _target_log_prob(self, hidden: Tensor, target: Tensor) -> Tensor:
        return -self._token_losses(hidden, target)

    def _log_prob(self, hidden: Tensor) -> Tensor:
        nodes = torch.arange(self.tree.shape[0], device=hidden.device)
        scores = F.linear(hidden, self.weight, self.bias)
        sides = self._decide(scores.unflatten(1, (nodes.shape[0], self.rows_per_node)), nodes)
        return tree_search.leaf_log_probs(sides, self.tree, self._levels)

    def _sides(self, hidden: Tensor, node: Tensor) -> Tensor:
        """Log-probabilities (M, k) of one node's sides for each hidden state (M, H)."""
        offset = torch.arange(self.rows_per_node, device=node.device)
        rows = node.unsqueeze(1) * self.rows_per_node + offset
        scores = torch.linalg.vecdot(hidden.unsqueeze(1), self.weight[rows])
        if self.bias is not None:
            scores = scores + self.bias[rows]
        return self._decide(scores, node)

    def _topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return tree_search.topk(hidden, self._sides, self.tree, k)

    def _sample(self, hidden: Tensor) -> Tensor:
        return tree_search.sample(hidden, self._sides, self.tree)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        children = state_dict.get(f"{prefix}tree")
        if children is not None and not torch.equal(children.cpu(), self.tree.cpu()):
            self._set_tree(Tree(children.cpu().numpy()))
            self.to(self.weight.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def flops(self, num_tokens: int) -> float:
        """Three sparse products over the expected path length."""
        return 6.0 * num_tokens * self._pairs * self.in_features

    def rows_touched(self, num_tokens: int) -> float:
        """Rows of the distinct nodes on the targets' paths."""
        return expected_distinct((self._node_shares, num_tokens)) * self.rows_per_node
