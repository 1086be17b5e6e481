from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmax_bench.classes.huffman import huffman_tree
from softmax_bench.classes.tree import ABSENT, Tree
from softmax_bench.errors import SoftmaxBenchError

any_counts = st.lists(st.integers(0, 50) | st.integers(0, 10**12), min_size=1, max_size=60)


def least_cost(counts: list[int], arity: int) -> int:
    """Total weight of all merges of the textbook's construction: the optimal expected length."""
    heap = list(counts) + [0] * (-(len(counts) - 1) % (arity - 1))
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        merged = sum(heapq.heappop(heap) for _ in range(arity))
        total += merged
        heapq.heappush(heap, merged)
    return total


@given(any_counts, st.integers(2, 6))
def test_expected_length_is_the_least_possible(counts: list[int], arity: int) -> None:
    depths = huffman_tree(counts, arity).depths.astype(object)
    assert int(np.asarray(counts, dtype=object) @ depths) == least_cost(counts, arity)


@given(any_counts, st.integers(2, 6))
def test_paths_lead_from_the_root_to_their_leaf(counts: list[int], arity: int) -> None:
    tree = huffman_tree(counts, arity)
    paths = tree.paths()
    for leaf in range(len(counts)):
        node = 0
        steps = range(paths.starts[leaf], paths.starts[leaf + 1])
        assert len(steps) == tree.depths[leaf]
        for step in steps:
            assert paths.nodes[step] == node
            node = int(tree.children[node, paths.codes[step]])
        assert node == (-leaf - 1 if len(counts) > 1 else 0)


@given(any_counts)
def test_nodes_are_numbered_by_falling_mass(counts: list[int]) -> None:
    tree = huffman_tree(counts)
    mass = np.zeros(len(counts) - 1)
    paths = tree.paths()
    leaf = np.repeat(np.arange(len(counts)), tree.depths)
    np.add.at(mass, paths.nodes, np.asarray(counts, dtype=float)[leaf])
    assert (np.diff(mass) <= 1e-6 * mass[:-1]).all()


def test_a_million_classes_need_no_recursion() -> None:
    counts = 10**9 // np.arange(1, 10**6 + 1)
    tree = huffman_tree(counts)
    assert tree.depths.max() < 40
    assert np.isclose((0.5**tree.depths).sum(), 1)  # Kraft's sum of a full tree


def test_equal_counts_give_a_balanced_tree() -> None:
    assert set(huffman_tree(np.ones(1000)).depths) == {9, 10}
    assert set(huffman_tree(np.zeros(1000)).depths) == {9, 10}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([], "at least one class"),
        ([1, -2, 3], r"class 1 has -2"),
        ([1, float("nan")], r"class 1 has nan"),
        ([[1, 2]], r"shape \(V,\)"),
    ],
)
def test_bad_counts(counts: object, message: str) -> None:
    with pytest.raises(SoftmaxBenchError, match=message):
        huffman_tree(counts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("children", "message"),
    [
        ([[-1, -1]], "not a tree"),
        ([[-1, 0]], "not a tree"),
        ([[1, -3], [-1, -2], [2, -4]], "smaller than its children"),
        ([[1], [-1]], "shape"),
        ([[-1, ABSENT, ABSENT]], "two children"),
    ],
)
def test_what_is_no_tree_is_refused(children: list[list[int]], message: str) -> None:
    with pytest.raises(SoftmaxBenchError, match=message):
        Tree(np.array(children))
