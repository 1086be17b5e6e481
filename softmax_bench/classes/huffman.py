"""Huffman trees (Huffman 1952): the shortest expected paths for classes of known frequency."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from softmax_bench.classes.counts import check_counts
from softmax_bench.classes.tree import ABSENT, Tree
from softmax_bench.errors import SoftmaxBenchError


def huffman_tree(counts: npt.ArrayLike, arity: int = 2) -> Tree:
    """The tree with the least ``sum_i counts_i depth_i``, nodes in descending order of mass.

    Items are merged in rounds of array operations. If the k lightest items sum to ``m``, every item
    up to ``m`` can be merged with its neighbours, because no merged item is lighter than ``m``. The
    lightest item at least doubles every two rounds, so there are O(log(total / lightest)) rounds,
    about fifty for 10^6 words of a corpus, without recursion or a heap.

    Args:
        counts: (V,) how often each class occurs; zeros and ties are allowed.
        arity: Number k of children per node. If the number of classes does not fit, the lightest
            node has fewer.

    Raises:
        SoftmaxBenchError: There are no classes, a count is negative or not finite, or the arity is
            not from 2 to 127.
    """
    weights = check_counts(counts)
    num_classes = weights.shape[0]
    if num_classes == 0:
        raise SoftmaxBenchError("a tree needs at least one class; class_counts is empty")
    if isinstance(arity, bool) or not isinstance(arity, int) or not 2 <= arity <= 127:
        raise SoftmaxBenchError(f"arity must be a whole number from 2 to 127, not {arity!r}")
    order = np.argsort(weights, kind="stable")
    # Missing leaves of no weight, merged first, make the last merge a full one.
    absent = -(num_classes - 1) % (arity - 1)
    weights = np.concatenate([np.zeros(absent), weights[order]])
    items = np.concatenate([np.full(absent, ABSENT), -order - 1])
    # Nodes are created in ascending order of mass; counting down gives the root number 0.
    nodes = (items.size - 1) // (arity - 1)
    children = np.empty((nodes, arity), dtype=np.int64)
    while items.size > 1:
        lightest_sum = weights[:arity].sum()
        merged = int(np.searchsorted(weights, lightest_sum, side="right")) // arity * arity
        merged = max(merged, arity)
        made = np.arange(nodes - 1, nodes - 1 - merged // arity, -1)
        nodes -= made.size
        children[made] = items[:merged].reshape(-1, arity)
        sums = weights[:merged].reshape(-1, arity).sum(axis=1)
        # A stable merge of two sorted runs. Leaves come before nodes of equal mass, which keeps the
        # longest path short.
        places = np.searchsorted(weights[merged:], sums, side="right")
        weights = np.insert(weights[merged:], places, sums)
        items = np.insert(items[merged:], places, made)
    return Tree(children)
