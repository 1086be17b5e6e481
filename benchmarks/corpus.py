"""How fast a text becomes token ids: ``python -m benchmarks.corpus TEXT [--vocab-size V]``.

``TEXT`` is anything that ``softmax-bench run`` accepts. Times are processor times of a single
thread, so that tokens per second are those of one core. The store is a new folder, and the text
itself is in the system's cache. If the text is compressed, unpacking is included, and also reported
separately.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from softmax_bench.corpora import Corpus, load_corpus
from softmax_bench.corpora.text import find_files, pieces
from softmax_bench.lm import make_streams

T = TypeVar("T")


def main() -> None:
    """Count, store, map and stream one text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--vocab-size", type=int, default=10_000)
    options = parser.parse_args()
    files = [path for paths in find_files(options.text).values() for path in paths]

    def read() -> int:
        return sum(1 for path in files for _ in pieces(path))

    def plain() -> Counter[str]:
        return Counter(word for path in files for piece in pieces(path) for word in piece.split())

    with tempfile.TemporaryDirectory() as folder:

        def load(vocab_size: int | None) -> Corpus:
            return load_corpus(str(options.text), vocab_size=vocab_size, cache_dir=Path(folder))

        corpus, seconds = _timed(lambda: load(None))
        tokens = len(corpus.train) + len(corpus.valid) + len(corpus.test)
        size = sum(len(piece.encode()) for path in files for piece in pieces(path))
        print(f"{tokens:,} tokens, {corpus.vocab_size:,} types, {size / 1e6:.0f} MB of text\n")

        def tell(what: str, took: float, count: int = tokens) -> None:
            print(f"{what:52} {took:7.2f} s {count / took / 1e6:8.1f} M tokens/s")

        tell("first load: read, split, count, number, store", seconds)
        tell("  of it reading, unpacking and decoding", _timed(read)[1])
        tell("collections.Counter on the same pieces", _timed(plain)[1])
        tell(f"ids of V = {options.vocab_size:,}", _timed(lambda: load(options.vocab_size))[1])
        corpus, seconds = _timed(lambda: load(options.vocab_size))
        tell("load again: hash the text, verify the ids", seconds)

        def stream() -> None:
            for _ in make_streams(corpus.train, 20, corpus.eos_id).windows(35):
                pass

        tell("training windows of 20 x 35", _timed(stream)[1], len(corpus.train))


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    begin = time.process_time()
    result = call()
    return result, time.process_time() - begin


if __name__ == "__main__":
    main()
