from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmax_bench.classes.neighbours import neighbour_vectors
from softmax_bench.classes.tree_shapes import balanced_tree, clustered_tree, random_tree
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import create_layer
from softmax_bench.layers.trees.tree_layer import TreeSoftmax


@given(st.integers(1, 200))
def test_balanced_trees_differ_by_one_level_at_most(num_classes: int) -> None:
    for tree in (balanced_tree(num_classes), random_tree(num_classes)):
        assert tree.num_classes == num_classes
        assert tree.depths.max() - tree.depths.min() <= 1
        assert np.isclose((0.5**tree.depths).sum(), 1)


def test_random_tree_has_no_reason_but_its_seed() -> None:
    first, again, other = (random_tree(50, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.children, again.children)
    assert not np.array_equal(first.children, other.children)


def test_no_classes() -> None:
    for build in (balanced_tree, random_tree):
        with pytest.raises(SoftmaxBenchError, match="at least one class"):
            build(0)


def test_likeness_decides_near_the_root() -> None:
    """Two far clouds of 150 points each: their classes must part at the root."""
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    cloud = rng.permutation(np.repeat([0, 1], 150))
    tree = clustered_tree(rng.normal(size=(300, 3)) + 20 * cloud[:, None], rng.integers(1, 9, 300))
    paths = tree.paths()
    first_side = paths.codes[paths.starts[:-1]]
    assert (first_side == cloud).all() or (first_side != cloud).all()


def test_vectors_that_are_all_alike_still_make_a_tree() -> None:
    pytest.importorskip("sklearn")
    for size in (1, 2, 64, 65, 300):
        assert clustered_tree(np.zeros((size, 2))).num_classes == size


@pytest.mark.parametrize(
    ("vectors", "counts", "message"),
    [
        (np.zeros(3), None, "vectors must be"),
        (np.full((3, 2), np.nan), None, "vectors must be"),
        (np.zeros((3, 2)), np.ones(4), "counts must have"),
    ],
)
def test_what_does_not_fit(vectors: np.ndarray, counts: np.ndarray | None, message: str) -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(SoftmaxBenchError, match=message):
        clustered_tree(vectors, counts)


def test_a_tree_comes_back_from_its_file_into_any_specification(tmp_path: Path) -> None:
    path = tmp_path / "mine.npy"
    tree = random_tree(20, seed=3)
    tree.save(path)
    for name in ("hierarchical", "hierarchical_kary"):
        layer = create_layer(f"{name}(tree={str(path)!r})", 4, 20)
        assert isinstance(layer, TreeSoftmax)
        assert layer.tree.tolist() == tree.children.tolist()
    with pytest.raises(SoftmaxBenchError, match="20 leaves, but there are 21"):
        create_layer(f"hierarchical(tree={str(path)!r})", 4, 21)


def test_files_without_a_tree(tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", np.zeros((3, 2)))
    (tmp_path / "text.npy").write_text("no array")
    for name, message in (
        ("none.npy", "cannot read a tree"),
        ("text.npy", "cannot read a tree"),
        ("floats.npy", "not a tree"),
    ):
        with pytest.raises(SoftmaxBenchError, match=message):
            create_layer(f"hierarchical(tree={str(tmp_path / name)!r})", 4, 4)


def test_leaves_from_left_to_right() -> None:
    assert balanced_tree(8).leaves().tolist() == list(range(8))
    assert sorted(random_tree(37).leaves()) == list(range(37))
    assert balanced_tree(1).leaves().tolist() == [0]


def test_words_with_the_same_neighbours_are_near_in_the_tree() -> None:
    """In a text of two kinds of words that follow each other in turn."""
    rng = np.random.default_rng(0)
    even = 2 * rng.integers(0, 100, 40_000)
    text = np.stack([even, 2 * rng.integers(0, 100, 40_000) + 1], 1).ravel()
    side = clustered_tree(neighbour_vectors(text, 200, dimensions=8)).leaves() % 2
    assert np.abs(np.diff(side)).sum() == 1
