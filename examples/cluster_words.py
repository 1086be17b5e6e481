"""A tree that groups similar words, for ``hierarchical(tree='FILE')`` and ``two_level``.

    python examples/cluster_words.py ptb 10000 tree.npy

Words are similar if similar words stand to their left and right in the training text.
"""

import sys

from softmax_bench.classes.neighbours import neighbour_vectors
from softmax_bench.classes.tree_shapes import clustered_tree
from softmax_bench.corpora import load_corpus


def main(spec: str, vocab_size: int, file: str) -> None:
    """Read the text, and save the tree of its words."""
    corpus = load_corpus(spec, vocab_size=vocab_size)
    vectors = neighbour_vectors(corpus.train, corpus.vocab_size)
    clustered_tree(vectors, corpus.class_counts).save(file)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
