"""Hierarchical softmax on a k-ary tree: fewer, wider decisions."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from softmax_bench.classes.counts import positive_counts
from softmax_bench.classes.huffman import huffman_tree
from softmax_bench.classes.tree import ABSENT, Tree
from softmax_bench.layers.options import CommonOptions, as_counts
from softmax_bench.layers.trees.tree_layer import TreeSoftmax


class KaryHierarchicalSoftmax(TreeSoftmax):
    """``p(w|h) = prod over the nodes on the path to w of softmax(h W_n + b_n)[side taken]``.

    Each node chooses among up to k children by a softmax, so a path has about ``log_k V`` nodes of
    k rows each. At k = 2, this is binary hierarchical softmax with one redundant row per node.

    Args:
        arity: Number k of children per node in the Huffman tree of ``class_counts``.
        tree: Your own tree instead, or its ``.npy`` file; its arity takes precedence.
        **common: As for every output layer.
    """

    name = "hierarchical_kary"
    scores = "k rows at each node on each target's path"
    source = "Mikolov et al. 2013, with Huffman's k-ary construction (1952)"
    good_for = "as hierarchical, with shorter paths of wider decisions"
    step_flops = "6 N H k L, L the mean path length: about log V / log k"
    exact = True
    normalised = "by construction"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        arity: int = 4,
        tree: Tree | str | None = None,
        **common: Unpack[CommonOptions],
    ) -> None:
        if tree is None:
            counts = common.get("class_counts")
            known = None if counts is None else as_counts(counts, num_classes)
            tree = huffman_tree(positive_counts(known, num_classes), arity)
        tree = Tree.given(tree, num_classes)
        super().__init__(in_features, num_classes, tree, tree.arity, **common)

    def _bias_of_shares(self, mass: Tensor) -> Tensor:
        # A missing side is masked in use; its offset only has to be finite.
        return torch.log(mass / mass.sum(1, keepdim=True)).clamp(min=-50.0)

    def _decide(self, scores: Tensor, node: Tensor) -> Tensor:
        absent = self.tree.index_select(0, node) == ABSENT
        return scores.masked_fill(absent, -math.inf).log_softmax(-1)
