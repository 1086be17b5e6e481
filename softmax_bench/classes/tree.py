"""Trees whose leaves are classes, as a value that can be built, passed and stored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from softmax_bench.errors import SoftmaxBenchError

Ints = npt.NDArray[np.int64]

ABSENT = np.iinfo(np.int64).min
"""Stands for a missing child of a node in a tree of arity above two."""


@dataclass(frozen=True)
class Paths:
    """The paths from the root to every leaf, one after another."""

    starts: Ints
    """(V+1,) the start of each class's path, and the total length at the end."""
    nodes: npt.NDArray[np.int32]
    """Internal nodes from the root down."""
    codes: npt.NDArray[np.int8]
    """The side taken at each node: an index into its ``children``."""


@dataclass(frozen=True, eq=False)
class Tree:
    """A tree over ``num_classes`` leaves whose nodes have up to k children.

    ``children`` (nodes, k) lists the children of each internal node: ``c >= 0`` is the internal
    node c, :data:`ABSENT` is none, and any other ``c < 0`` is the leaf of class ``-c - 1``. Node 0
    is the root. A node's number is smaller than its children's, so that one sweep in numeric order
    visits parents first. A binary tree has no missing child, and V - 1 nodes.

    Raises:
        SoftmaxBenchError: ``children`` is not such a tree.
    """

    children: Ints

    def __post_init__(self) -> None:
        children = self.children
        if children.ndim != 2 or not 2 <= children.shape[1] <= 127:
            raise SoftmaxBenchError(
                f"children must have shape (nodes, k) with k from 2 to 127, not {children.shape}"
            )
        nodes = children.shape[0]
        if np.any((children != ABSENT).sum(1) < 2):
            raise SoftmaxBenchError("every node needs at least two children")
        numbers = np.sort(children[children != ABSENT])
        expected = np.concatenate([np.arange(-self.num_classes, 0), np.arange(1, nodes)])
        if nodes and not np.array_equal(numbers, expected):
            raise SoftmaxBenchError(
                "not a tree: every class (-1 ... -V) and every internal node but the root "
                f"(1 ... {nodes - 1}) must be the child of exactly one node"
            )
        if np.any((children >= 0) & (children <= np.arange(nodes)[:, None])):
            raise SoftmaxBenchError("a node's number must be smaller than its children's")

    def save(self, path: str | Path) -> None:
        """Write ``children`` as an ``.npy`` file, which layers take as ``tree='FILE.npy'``."""
        np.save(Path(path).with_suffix(".npy"), self.children)

    @classmethod
    def load(cls, path: str | Path) -> Tree:
        """Load a tree from a file that :meth:`save` wrote.

        Raises:
            SoftmaxBenchError: There is no such file, or it does not contain a tree.
        """
        try:
            children = np.load(path)
        except (OSError, ValueError) as error:
            raise SoftmaxBenchError(f"cannot read a tree from {str(path)!r}: {error}") from None
        if children.dtype.kind != "i":
            raise SoftmaxBenchError(f"{str(path)!r} holds {children.dtype} numbers, not a tree")
        return cls(children.astype(np.int64))

    @classmethod
    def given(cls, tree: object, num_classes: int) -> Tree:
        """A user's tree of these classes: the object, or the file that it was saved to.

        Raises:
            SoftmaxBenchError: It is neither, or has other classes.
        """
        if isinstance(tree, str | Path):
            tree = cls.load(tree)
        if not isinstance(tree, cls):
            raise SoftmaxBenchError(
                f"tree must be a softmax_bench.classes.tree.Tree or its file, not {tree!r:.60}"
            )
        if tree.num_classes != num_classes:
            raise SoftmaxBenchError(
                f"the tree has {tree.num_classes} leaves, but there are {num_classes} classes"
            )
        return tree

    @cached_property
    def num_classes(self) -> int:
        """Number of leaves."""
        return int(self._leaf.sum()) if self.children.shape[0] else 1

    @property
    def arity(self) -> int:
        """Maximum number of children of a node."""
        return self.children.shape[1]

    @cached_property
    def _leaf(self) -> npt.NDArray[np.bool_]:
        return (self.children < 0) & (self.children != ABSENT)

    @cached_property
    def levels(self) -> list[Ints]:
        """Internal nodes by depth, starting with the root's level."""
        levels = []
        level = np.arange(min(1, self.children.shape[0]))
        while level.size:
            levels.append(level)
            below = self.children[level].reshape(-1)
            level = np.sort(below[below >= 0])
        return levels

    @cached_property
    def depths(self) -> Ints:
        """(V,) length of each leaf's path."""
        depths = np.zeros(self.num_classes, dtype=np.int64)
        for depth, level in enumerate(self.levels, start=1):
            below = self.children[level]
            depths[-below[self._leaf[level]] - 1] = depth
        return depths

    def leaves(self) -> Ints:
        """(V,) classes from left to right: neighbours share a long path from the root."""
        classes, waiting = [], [0 if len(self.children) else -1]
        while waiting:
            node = waiting.pop()
            if node >= 0:
                waiting += [child for child in self.children[node, ::-1] if child != ABSENT]
            else:
                classes.append(-node - 1)
        return np.array(classes)

    def paths(self) -> Paths:
        """The path of every class, found by one walk from all leaves to the root at once."""
        starts = np.concatenate([[0], np.cumsum(self.depths)])
        nodes = np.empty(starts[-1], dtype=np.int32)
        codes = np.empty(starts[-1], dtype=np.int8)
        leaf_parent, leaf_code = self._parents_of_leaves()
        node_parent, node_code = self._parents_of_nodes()
        place = starts[1:] - 1  # paths are filled starting from the leaf
        node, code = leaf_parent, leaf_code
        if not self.children.shape[0]:
            return Paths(starts, nodes, codes)
        while place.size:
            nodes[place], codes[place] = node, code
            going_on = node > 0
            place, node = place[going_on] - 1, node[going_on]
            node, code = node_parent[node], node_code[node]
        return Paths(starts, nodes, codes)

    def _parents_of_leaves(self) -> tuple[Ints, npt.NDArray[np.int8]]:
        parent, side = np.nonzero(self._leaf)
        leaf = -self.children[parent, side] - 1
        return _scatter(leaf, parent, side, self.num_classes)

    def _parents_of_nodes(self) -> tuple[Ints, npt.NDArray[np.int8]]:
        parent, side = np.nonzero(self.children >= 0)
        return _scatter(self.children[parent, side], parent, side, self.num_classes)


def _scatter(at: Ints, parent: Ints, side: Ints, size: int) -> tuple[Ints, npt.NDArray[np.int8]]:
    parents = np.zeros(size, dtype=np.int64)
    sides = np.zeros(size, dtype=np.int8)
    parents[at], sides[at] = parent, side
    return parents, sides
