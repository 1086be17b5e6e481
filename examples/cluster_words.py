"""A tree that groups similar words, for ``hierarchical(tree='FILE')`` and ``two_level``.

    python examples/cluster_words.py ptb 10000 tree.npy

Words are similar if similar words stand to their left and right in the training text. With a fourth
argument, only the tokens that a training of that many reads (in 20 streams) are looked at.
"""

import sys

import numpy as np

from softmax_bench.classes.neighbours import neighbour_vectors
from softmax_bench.classes.tree_shapes import clustered_tree
from softmax_bench.corpora import load_corpus
from softmax_bench.lm.streams import make_streams


def main(spec: str, vocab_size: int, file: str, max_tokens: int | None = None) -> None:
    """Read the text, and save the tree of its words."""
    corpus = load_corpus(spec, vocab_size=vocab_size)
    text = make_streams(corpus.train, 20, corpus.eos_id)
    text = text if max_tokens is None else text.part(max_tokens)
    vectors = neighbour_vectors(np.concatenate(text.read()), corpus.vocab_size)
    clustered_tree(vectors, corpus.class_counts).save(file)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:]))
