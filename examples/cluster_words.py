"""A tree that groups similar words, for ``hierarchical(tree='FILE')`` and ``two_level``.

    python examples/cluster_words.py ptb 10000 tree.npy

Words are similar if similar words stand to their left and right in the training text. With a fourth
argument, only the tokens that a training of that many reads (in 20 streams) are looked at.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from softmax_bench.classes.neighbours import neighbour_vectors
from softmax_bench.classes.tree_shapes import clustered_tree
from softmax_bench.corpora import load_corpus
from softmax_bench.errors import brief_errors
from softmax_bench.lm.streams import make_streams


def main(
    corpus: str,
    vocab_size: int,
    file: Path,
    max_tokens: Annotated[int | None, typer.Argument(min=1)] = None,
) -> None:
    """Save a tree of the words of a corpus in which similar words are close to each other."""
    loaded = load_corpus(corpus, vocab_size=vocab_size)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = make_streams(loaded.train, 20, loaded.eos_id)
    text = text if max_tokens is None else text.part(max_tokens)
    vectors = neighbour_vectors(np.concatenate(text.read()), loaded.vocab_size)
    clustered_tree(vectors, loaded.class_counts).save(file)


if __name__ == "__main__":
    with brief_errors("cluster_words.py"):
        typer.run(main)
