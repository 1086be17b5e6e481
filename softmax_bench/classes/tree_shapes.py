"""Trees that are not Huffman's: balanced, random, and clustered by the similarity of classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from softmax_bench.classes.huffman import huffman_tree
from softmax_bench.classes.tree import Tree
from softmax_bench.errors import SoftmaxBenchError

_CLUSTER = 64
"""Most classes of a cluster, inside which the tree depends on frequency only."""


def balanced_tree(num_classes: int) -> Tree:
    """The binary tree whose leaves, in order of class id, all lie within one level.

    Raises:
        SoftmaxBenchError: There are no classes.
    """
    return _balanced(np.arange(num_classes))


def random_tree(num_classes: int, seed: int = 0) -> Tree:
    """The balanced tree with classes in random order, as a baseline for meaningful trees.

    Raises:
        SoftmaxBenchError: There are no classes.
    """
    return _balanced(np.random.default_rng(seed).permutation(num_classes))


def _balanced(classes: npt.NDArray[np.int64]) -> Tree:
    num_classes = classes.shape[0]
    if num_classes < 1:
        raise SoftmaxBenchError("a tree needs at least one class")
    nodes = num_classes - 1
    # Numbered as in a heap: first nodes, then leaves.
    places = np.arange(1, 2 * num_classes - 1).reshape(nodes, 2)
    leaf = np.maximum(places - nodes, 0)
    return Tree(np.where(places < nodes, places, -classes[leaf] - 1))


def clustered_tree(vectors: npt.ArrayLike, counts: npt.ArrayLike | None = None) -> Tree:
    """A binary tree in which similar classes share a long path from the root.

    k-means repeatedly splits the classes in two, as in the bootstrapped trees of Mnih & Hinton
    (2009), down to clusters of at most 64 classes; inside a cluster, the tree is Huffman's.

    Args:
        vectors: (V, D) one vector per class, such as the rows of a trained embedding.
        counts: (V,) how often each class occurs; equally often if None.

    Raises:
        SoftmaxBenchError: Vectors or counts are invalid, or scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import KMeans
    except ImportError:
        raise SoftmaxBenchError(
            "clustered_tree needs scikit-learn: pip install 'softmax-bench[trees]'"
        ) from None
    points = np.asarray(vectors, dtype=np.float32)
    if points.ndim != 2 or not points.shape[0] or not np.isfinite(points).all():
        raise SoftmaxBenchError(
            f"vectors must be finite and of shape (V, D), not {points.shape} "
            "or one with NaN or infinity"
        )
    weights = np.ones(points.shape[0]) if counts is None else np.asarray(counts, dtype=float)
    if weights.shape != points.shape[:1]:
        raise SoftmaxBenchError(
            f"counts must have shape ({points.shape[0]},), one a vector, not {weights.shape}"
        )
    children: list[list[int]] = []
    waiting = [(np.arange(points.shape[0]), -1, 0)]
    while waiting:
        members, parent, side = waiting.pop()
        first = len(children)
        if members.size <= _CLUSTER:
            inner = huffman_tree(weights[members]).children
            leaf = -members[np.where(inner < 0, -inner - 1, 0)] - 1
            children += np.where(inner < 0, leaf, inner + first).tolist()
            here = first if members.size > 1 else -int(members[0]) - 1
        else:
            here_points = points[members]
            if (here_points == here_points[0]).all():
                right = np.arange(members.size) % 2 == 1
            else:
                kmeans = KMeans(2, n_init=1, max_iter=20, random_state=0)
                right = kmeans.fit(here_points).labels_ == 1
            children.append([0, 0])
            here = first
            waiting += [(members[~right], here, 0), (members[right], here, 1)]
        if parent >= 0:
            children[parent][side] = here
    return Tree(np.array(children, dtype=np.int64).reshape(-1, 2))
