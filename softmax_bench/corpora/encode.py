"""From text to token ids: one pass that numbers types as they appear, then a table.

The numbers of a text are stored once; the ids of each vocabulary size are derived from them and
stored too. Both are identified by the content of the text, not by its name or date.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from softmax_bench.corpora.progress import byte_progress
from softmax_bench.corpora.subwords import encode_subwords
from softmax_bench.corpora.text import SPLITS, WHOLE, Files, content_hash, pieces
from softmax_bench.corpora.tokens import (
    Ids,
    Tokens,
    append_tokens,
    count,
    cut,
    describe,
    map_tokens,
    read_tokens,
    stretches,
    tokens_file,
)
from softmax_bench.corpora.vocabulary import END_OF_LINE, TypeIndex, choose_vocabulary
from softmax_bench.corpora.whole_folder import whole_folder
from softmax_bench.errors import SoftmaxBenchError

_FORMAT = 2
"""Part of the cache key; raise it when the same text gives other tokens."""


def encode(files: Files, vocab_size: int | None, cache: Path, *, subwords: bool = False) -> Tokens:
    """Token ids of a text, read from ``cache`` or created and stored there.

    Tokens are separated by white space, and every line ends in ``<eos>``. A single file is cut
    into 90 % training, 5 % validation and 5 % test text, in this order and at line ends: shuffling
    lines would put neighbours of test lines into the training text. A file with fewer than three
    lines (text8 has one) is cut between words.

    Memory is needed only for the types, however long the text is.

    Args:
        files: The text.
        vocab_size: Number of types to keep, all of the training text by default.
        cache: Folder for stored ids.
        subwords: Whether tokens are the subwords of a byte-pair encoding instead of words.

    Raises:
        SoftmaxBenchError: The text is empty or binary, the vocabulary does not suit it, or the
            cache cannot be written.
    """
    key = f"{content_hash(files)[:32]}-{_FORMAT}"

    def words() -> Tokens:
        return _stored(cache / f"{key}-types", lambda folder: _number(files, folder))

    if subwords:
        if vocab_size is None:
            raise SoftmaxBenchError("a text in subwords needs a vocabulary size")
        size = vocab_size
        return _stored(
            cache / f"{key}-bpe-{size}", lambda folder: encode_subwords(words(), size, folder)
        )
    kept = "all" if vocab_size is None else str(vocab_size)
    return _stored(cache / f"{key}-{kept}", lambda folder: _choose(words(), vocab_size, folder))


def _stored(folder: Path, make: Callable[[Path], None]) -> Tokens:
    if folder.is_dir():
        tokens = read_tokens(folder)
        if tokens is not None:
            return tokens
        logging.getLogger(__name__).warning("%s is damaged and is created again", folder)
        shutil.rmtree(folder, ignore_errors=True)
    with whole_folder(folder) as made:
        make(made)
    tokens = read_tokens(folder)
    if tokens is None:
        raise SoftmaxBenchError(f"what was written to {folder} is not what is read from it")
    return tokens


def _number(files: Files, folder: Path) -> None:
    """Number all tokens of a text, with types in order of first appearance."""
    index = TypeIndex()
    ends: list[int] = []
    total = 0
    size = sum(path.stat().st_size for paths in files.values() for path in paths)
    with (
        tokens_file(folder).open("wb") as out,
        byte_progress("counting words", size) as on_bytes,
    ):
        for paths in files.values():
            has_words = False
            for path in paths:
                for piece in pieces(path, on_bytes=on_bytes):
                    # One split of a whole piece is much faster than one per line.
                    numbers = index.encode(piece.replace("\n", f" {END_OF_LINE} ").split())
                    append_tokens(out, numbers)
                    total += len(numbers)
                    if not has_words:
                        has_words = bool((numbers != index.numbers.get(END_OF_LINE, -1)).any())
            if not has_words:
                raise SoftmaxBenchError(
                    f"{paths[0]} is empty: expected text, tokens separated by blanks"
                )
            ends.append(total)
    if list(files) == [WHOLE]:
        ends = _cut_whole(map_tokens(folder), index.numbers[END_OF_LINE], files[WHOLE][0])
    types = list(index.numbers)
    lengths = np.array([len(word.encode()) + 1 for word in types])
    lengths[index.numbers[END_OF_LINE]] = 0  # a line end comes after the line's last word
    splits = cut(map_tokens(folder), ends)
    sizes = [int(count(splits[split], len(types)) @ lengths) for split in SPLITS]
    describe(folder, types, ends, sizes)


def _cut_whole(tokens: Ids, end_of_line: int, path: Path) -> list[int]:
    """Where the splits of a single-file text end."""
    lines = sum(int(np.count_nonzero(part == end_of_line)) for part in stretches(tokens))
    if lines >= len(SPLITS):
        held_out = max(1, lines // 20)
        return [
            _end_of_line(tokens, end_of_line, lines - 2 * held_out),
            _end_of_line(tokens, end_of_line, lines - held_out),
            len(tokens),
        ]
    if len(tokens) < len(SPLITS):
        raise SoftmaxBenchError(
            f"{path} has {len(tokens)} tokens: at least 3 are needed to cut it into train, "
            "valid and test"
        )
    held_out = max(1, len(tokens) // 20)
    return [len(tokens) - 2 * held_out, len(tokens) - held_out, len(tokens)]


def _end_of_line(tokens: Ids, end_of_line: int, line: int) -> int:
    """The end of the line with this number, counted from 1."""
    seen = start = 0
    for part in stretches(tokens):
        places = np.flatnonzero(part == end_of_line)
        if seen + len(places) >= line:
            return start + int(places[line - seen - 1]) + 1
        seen += len(places)
        start += len(part)
    raise AssertionError("the text now has fewer lines than were counted")


def _choose(numbered: Tokens, vocab_size: int | None, folder: Path) -> None:
    """Write the ids of a vocabulary of the most frequent types."""
    counts = count(numbered.splits["train"], len(numbered.types))
    vocabulary, ids = choose_vocabulary(numbered.types, counts, vocab_size)
    with (
        tokens_file(folder).open("wb") as out,
        byte_progress("writing token ids", 4 * sum(map(len, numbered.splits.values()))) as on_bytes,
    ):
        for split in SPLITS:
            for part in stretches(numbered.splits[split]):
                append_tokens(out, ids[part])
                on_bytes(part.nbytes)
    ends = np.cumsum([len(numbered.splits[split]) for split in SPLITS]).tolist()
    unknown = vocabulary.unknown_types
    describe(folder, vocabulary.words, ends, numbered.sizes, unknown_types=unknown)
