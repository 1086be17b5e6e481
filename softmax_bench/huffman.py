"""Huffman trees (Huffman 1952): the shortest expected path for classes of known frequency."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.tree import BinaryTree


def check_counts(counts: npt.ArrayLike, num_classes: int | None = None) -> npt.NDArray[np.float64]:
    """Class counts as float64.

    Raises:
        SoftmaxBenchError: They are not one finite number >= 0 for each class.
    """
    array = np.asarray(counts, dtype=np.float64)
    if array.ndim != 1 or (num_classes is not None and array.shape[0] != num_classes):
        wanted = "V" if num_classes is None else num_classes
        raise SoftmaxBenchError(
            f"class_counts must have shape ({wanted},), one count a class, not {array.shape}"
        )
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if bad.size:
        raise SoftmaxBenchError(
            f"class_counts must be finite and not negative: class {bad[0]} has {array[bad[0]]}"
            + (f", and {bad.size - 1} more are wrong" if bad.size > 1 else "")
        )
    return array


def huffman_tree(counts: npt.ArrayLike) -> BinaryTree:
    """The tree of least ``sum_i counts_i depth_i``, internal nodes in falling order of mass.

    Merges are made in rounds, each by array operations: as long as the two lightest items sum to
    ``m``, every item up to ``m`` is paired with its neighbour, because no merged item is lighter
    than ``m``. The lightest item at least doubles every two rounds, so there are O(log(total /
    lightest)) rounds, about fifty for 10^6 words of a corpus, with neither recursion nor a heap.

    Args:
        counts: (V,) how often each class occurs; zeros and ties are allowed.

    Raises:
        SoftmaxBenchError: There are no classes, or a count is negative or not finite.
    """
    weights = check_counts(counts)
    num_classes = weights.shape[0]
    if num_classes == 0:
        raise SoftmaxBenchError("a tree needs at least one class; class_counts is empty")
    order = np.argsort(weights, kind="stable")
    weights = weights[order]
    items = -order - 1
    # Nodes are made in rising order of mass; counting down from V-2 gives the root number 0.
    children = np.empty((num_classes - 1, 2), dtype=np.int64)
    next_node = num_classes - 2
    while items.size > 1:
        lightest_sum = weights[0] + weights[1]
        paired = int(np.searchsorted(weights, lightest_sum, side="right")) & ~1
        paired = max(paired, 2)
        made = np.arange(next_node, next_node - paired // 2, -1)
        next_node -= made.size
        children[made] = items[:paired].reshape(-1, 2)
        sums = weights[:paired].reshape(-1, 2).sum(axis=1)
        # Stable merge of two sorted runs, what is there first: leaves before nodes of equal
        # mass, which keeps the longest path short.
        places = np.searchsorted(weights[paired:], sums, side="right")
        weights = np.insert(weights[paired:], places, sums)
        items = np.insert(items[paired:], places, made)
    return BinaryTree(children)
