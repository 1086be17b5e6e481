"""Hierarchical softmax: a class is a path of binary decisions in a tree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.huffman import huffman_tree
from softmax_bench.layers import tree_search
from softmax_bench.layers.base import CommonOptions, Cost, OutputLayer
from softmax_bench.noise import positive_counts
from softmax_bench.ops import keep_coalesced, pair_scores
from softmax_bench.tree import BinaryTree


class HierarchicalSoftmax(OutputLayer):
    """``p(w|h) = prod over the nodes n on the path to w of sigmoid(+-(h . w_n + b_n))``.

    The sign is + where the path takes side 1. The product of sigmoids sums to one over the leaves
    by itself: training by exact likelihood scores only the nodes on the targets' paths, about
    log2 V of them with a Huffman tree, and so does exact evaluation.

    A node's bias starts where its two sides have their share of ``class_counts``, so that the
    model starts at the unigram distribution.

    Args:
        tree: The tree; by default the Huffman tree of ``class_counts``. Its leaves are the class
            ids, which need no order. The state dict carries it.
        **common: As for every output layer.
    """

    name = "hierarchical"
    scores = "the nodes on each target's path"
    source = "Morin & Bengio 2005; Mikolov et al. 2013"
    good_for = "the largest V; fast exact probabilities of given classes; costs some perplexity"
    step_flops = "6 N H L, L the mean path length: at most about log2 V"
    exact = True
    normalised = "by construction"

    bias: nn.Parameter | None
    tree: Tensor
    path_starts: Tensor
    path_nodes: Tensor
    path_codes: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        tree: BinaryTree | None = None,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        counts = positive_counts(self._counts, num_classes)
        if tree is None:
            tree = huffman_tree(counts)
        elif tree.num_classes != num_classes:
            raise SoftmaxBenchError(
                f"the tree has {tree.num_classes} leaves, but there are {num_classes} classes"
            )
        device, dtype = common.get("device"), common.get("dtype")
        nodes = num_classes - 1
        self.weight = nn.Parameter(torch.empty(nodes, in_features, device=device, dtype=dtype))
        if common.get("bias", True):
            self.bias = nn.Parameter(torch.empty(nodes, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.register_buffer("tree", torch.from_numpy(tree.children).to(device))
        self._set_tree(tree, torch.device(device) if device is not None else None)
        self.reset_parameters(tree, torch.from_numpy(counts))
        for parameter in self.row_sparse_parameters():
            keep_coalesced(parameter)

    def _set_tree(self, tree: BinaryTree, device: torch.device | None) -> None:
        paths = tree.paths()
        # Derived from the tree, so not in the state dict.
        for name, array in (
            ("path_starts", paths.starts),
            ("path_nodes", paths.nodes),
            ("path_codes", paths.codes),
        ):
            self.register_buffer(name, torch.from_numpy(array).to(device), persistent=False)
        self._levels = [torch.from_numpy(level) for level in tree.levels]

    def reset_parameters(self, tree: BinaryTree, counts: Tensor) -> None:
        """Small uniform rows; biases at the log odds of the two sides' counts."""
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is None:
            return
        mass = torch.zeros(tree.children.shape, dtype=torch.float64)
        of_node = torch.zeros(tree.children.shape[0], dtype=torch.float64)
        children = torch.from_numpy(tree.children)
        for level in reversed(self._levels):
            below = children[level]
            leaf = below < 0
            sides = torch.where(
                leaf, counts[(-below - 1).clamp(min=0)], of_node[below.clamp(min=0)]
            )
            mass[level] = sides
            of_node[level] = sides.sum(1)
        with torch.no_grad():
            self.bias.copy_(torch.log(mass[:, 1] / mass[:, 0]))

    def row_sparse_parameters(self) -> Iterator[nn.Parameter]:
        """Weight and bias: a step touches the nodes on its targets' paths."""
        yield from (p for p in (self.weight, self.bias) if p is not None)

    def _paths(self, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where each target's path starts, its nodes, and its codes, all paths in a row."""
        begin = self.path_starts.index_select(0, target)
        lengths = self.path_starts.index_select(0, target + 1) - begin
        starts = F.pad(lengths.cumsum(0), (1, 0))
        total = int(starts[-1])
        shift = (begin - starts[:-1]).repeat_interleave(lengths, output_size=total)
        place = shift + torch.arange(total, device=target.device)
        nodes = self.path_nodes.index_select(0, place).long()
        return starts, nodes, self.path_codes.index_select(0, place)

    def _path_losses(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """``-log sigmoid(+-score)`` at every node of every path, and where each path starts."""
        starts, nodes, codes = self._paths(target)
        scores = pair_scores(hidden, self.weight, self.bias, starts, nodes)
        sign = 1 - 2 * codes.to(scores.dtype)
        return F.softplus(sign * scores), starts

    def _loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        losses, starts = self._path_losses(hidden, target)
        share = coefficient.repeat_interleave(starts.diff(), output_size=losses.shape[0])
        return torch.dot(losses, share.to(losses.dtype))

    def _losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        losses, starts = self._path_losses(hidden, target)
        return torch.segment_reduce(losses, "sum", offsets=starts, initial=0.0)

    def _target_log_prob(self, hidden: Tensor, target: Tensor) -> Tensor:
        return -self._losses(hidden, target)

    def _log_prob(self, hidden: Tensor) -> Tensor:
        scores = F.linear(hidden, self.weight, self.bias)
        return tree_search.leaf_log_probs(scores, self.tree, self._levels)

    def _topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return tree_search.topk(hidden, self.weight, self.bias, self.tree, k)

    def _sample(self, hidden: Tensor) -> Tensor:
        return tree_search.sample(hidden, self.weight, self.bias, self.tree)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        children = state_dict.get(f"{prefix}tree")
        if children is not None and not torch.equal(children.cpu(), self.tree.cpu()):
            self._set_tree(BinaryTree(children.cpu().numpy()), self.tree.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def cost(self, num_tokens: int) -> Cost:
        """Three sparse products over the expected path length."""
        depths = self.path_starts.diff().double().cpu()
        shares = torch.from_numpy(positive_counts(self._counts, self.num_classes))
        length = float(depths @ (shares / shares.sum()))
        width, size = self.in_features, self.weight.element_size()
        rows = int(min(self.num_classes - 1, num_tokens * length))
        return Cost(
            flops=6.0 * num_tokens * length * width,
            bytes=size * (3.0 * rows * width + 2.0 * num_tokens * width),
            parameters=sum(p.numel() for p in self.parameters()),
            rows_touched=rows,
        )
