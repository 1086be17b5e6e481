"""Hierarchical softmax: a class is a path of binary decisions in a tree."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.classes.counts import positive_counts
from softmax_bench.classes.huffman import huffman_tree
from softmax_bench.classes.tree import Tree
from softmax_bench.classes.tree_shapes import balanced_tree, random_tree
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.options import CommonOptions, Counts, as_counts
from softmax_bench.layers.trees.tree_layer import TreeSoftmax


class HierarchicalSoftmax(TreeSoftmax):
    """``p(w|h) = prod over the nodes n on the path to w of sigmoid(+-(h . w_n + b_n))``.

    The sign is + if the path takes side 1. A path has about log2 V nodes, and fewer for frequent
    classes in a Huffman tree. A node's bias starts at the shares of ``class_counts`` of its two
    sides, so that the model starts at the unigram distribution.

    Args:
        tree: ``"huffman"`` (of ``class_counts``), ``"balanced"`` (in order of id), ``"random"``,
            or your own binary tree, such as that of
            :func:`~softmax_bench.classes.tree_shapes.clustered_tree`: the object, or, in a
            specification, the file it was saved to: ``"hierarchical(tree='clustered.npy')"``.
        **common: As for every output layer.
    """

    name = "hierarchical"
    scores = "the nodes on each target's path"
    source = "Morin & Bengio 2005; Mikolov et al. 2013"
    good_for = "the largest V; fast exact probabilities of given classes; costs some perplexity"
    step_flops = "6 N H L, L the mean path length: at most about log2 V"
    exact = True
    normalised = "by construction"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        tree: Tree | str = "huffman",
        **common: Unpack[CommonOptions],
    ) -> None:
        if isinstance(tree, str):
            tree = _named_tree(tree, num_classes, common.get("class_counts"))
        tree = Tree.given(tree, num_classes)
        if tree.arity != 2:
            raise SoftmaxBenchError(
                f"the tree must be binary, not of arity {tree.arity}: use 'hierarchical_kary'"
            )
        super().__init__(in_features, num_classes, tree, 1, **common)

    def _bias_of_shares(self, mass: Tensor) -> Tensor:
        return torch.log(mass[:, 1:] / mass[:, :1])

    def _decide(self, scores: Tensor, node: Tensor) -> Tensor:
        return F.logsigmoid(torch.cat([-scores, scores], -1))


def _named_tree(name: str, num_classes: int, counts: Counts | None) -> Tree:
    if name == "huffman":
        known = None if counts is None else as_counts(counts, num_classes)
        return huffman_tree(positive_counts(known, num_classes))
    if name == "balanced":
        return balanced_tree(num_classes)
    if name == "random":
        return random_tree(num_classes)
    if name.endswith(".npy"):
        return Tree.load(name)
    raise SoftmaxBenchError(
        f"unknown tree {name!r}: choose 'huffman', 'balanced' or 'random', or pass a Tree or its "
        ".npy file"
    )
