"""Texts as people have them: one file, or a folder with a file a split."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from softmax_bench.corpora.vocabulary import (
    END_OF_LINE,
    Ids,
    TypeIndex,
    Vocabulary,
    choose_vocabulary,
)
from softmax_bench.errors import SoftmaxBenchError

SPLITS = ("train", "valid", "test")
_LOOKED_AT = 8192
"""Bytes at the start of a file that tell whether it is binary."""
_SUFFIXES = (".txt", ".txt.gz", ".tokens")
"""Of the texts in a folder; ``.tokens`` as in WikiText's ``wiki.train.tokens``."""


def read_text(path: Path, vocab_size: int | None) -> tuple[Vocabulary, dict[str, Ids]]:
    """Token ids of every split of the text at ``path``.

    Tokens are separated by white space, and every line ends in ``<eos>``. A single file is cut
    into 90 % training, 5 % validation and 5 % test text, in this order and at line ends: splits
    of mixed lines would have neighbours of the test lines in the training text.

    Args:
        path: A text file, or a folder with ``train.txt``, ``valid.txt`` and ``test.txt`` (or
            gzip of them, or with a prefix: ``ptb.train.txt``).
        vocab_size: Number of types to keep, all of the training text by default.

    Raises:
        SoftmaxBenchError: There is no such text, it is empty, binary, not UTF-8 or a broken
            gzip, or the vocabulary is larger than it offers.
    """
    index = TypeIndex()
    if path.is_dir():
        numbers = {split: _encode(_find_split(path, split), index)[0] for split in SPLITS}
    elif path.is_file():
        whole, line_ends = _encode(path, index)
        numbers = _cut(path, whole, line_ends)
    else:
        raise SoftmaxBenchError(
            f"no text at {path}: expected a text file, a folder with train, valid and test "
            "files, or 'synthetic'"
        )
    counts = np.bincount(numbers["train"], minlength=len(index.numbers))
    needs_unknown = any(bool((counts[numbers[split]] == 0).any()) for split in SPLITS)
    vocabulary, ids = choose_vocabulary(index, counts, vocab_size, needs_unknown=needs_unknown)
    return vocabulary, {split: ids[numbers[split]] for split in SPLITS}


def _find_split(folder: Path, split: str) -> Path:
    for suffix in _SUFFIXES:
        names = [folder / f"{split}{suffix}", *sorted(folder.glob(f"*.{split}{suffix}"))]
        found = [path for path in names if path.is_file()]
        if len(found) > 1:
            raise SoftmaxBenchError(
                f"{folder} has more than one {split} text: {', '.join(p.name for p in found)}"
            )
        if found:
            return found[0]
    wanted = ", ".join(f"{split}{suffix}" for suffix in _SUFFIXES)
    raise SoftmaxBenchError(
        f"{folder} has no {split} text: looked for {wanted}, and for the same with a prefix "
        f"(as in ptb.{split}.txt)"
    )


def _encode(path: Path, index: TypeIndex) -> tuple[Ids, Ids]:
    """Provisional numbers of all tokens of a file, and where its lines end."""
    parts: list[Ids] = []
    ends: list[Ids] = []
    total = 0
    for chunk in _chunks(path):
        # One split of a whole chunk is much faster than one a line.
        tokens = chunk.replace("\n", f" {END_OF_LINE} ").split()
        numbers = index.encode(tokens)
        is_end = numbers == index.numbers[END_OF_LINE]
        ends.append((np.flatnonzero(is_end) + 1 + total).astype(np.int32))
        parts.append(numbers)
        total += len(numbers)
    if total == sum(map(len, ends)):
        raise SoftmaxBenchError(f"{path} is empty: expected text, tokens separated by blanks")
    return np.concatenate(parts), np.concatenate(ends)


def _chunks(path: Path, size: int = 2**22) -> Iterator[str]:
    """The text of a file in pieces of whole lines; the last line gets its end if it has none."""
    rest = b""
    read = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while True:
            try:
                data = file.read(size)
            except (OSError, EOFError, zlib.error) as error:
                raise SoftmaxBenchError(
                    f"{path} is not a whole gzip file ({error}): fetch or pack it again"
                ) from error
            if not data:
                break
            line_end = data.rfind(b"\n") + 1
            piece, rest = (
                (rest + data[:line_end], data[line_end:]) if line_end else (b"", rest + data)
            )
            yield _decode(path, piece, read)
            read += len(piece)
    if rest:
        yield _decode(path, rest, read) + "\n"


def _decode(path: Path, data: bytes, offset: int) -> str:
    # Binary files have zero bytes near their start; real texts (the Latin Library, for one) have
    # a stray one far inside, which is then a character like any other.
    if offset == 0 and b"\0" in data[:_LOOKED_AT]:
        raise SoftmaxBenchError(
            f"{path} is not text: byte {data.index(0)} is zero; expected UTF-8 text or gzip of it "
            "(with a name that ends in .gz): convert it with iconv -f utf-16 -t utf-8"
        )
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise SoftmaxBenchError(
            f"{path} is not UTF-8: byte {offset + error.start} is 0x{data[error.start]:02x}; "
            "convert it, for example with iconv -f latin1 -t utf-8"
        ) from error


def _cut(path: Path, numbers: Ids, line_ends: Ids) -> dict[str, Ids]:
    if len(line_ends) < len(SPLITS):
        raise SoftmaxBenchError(
            f"{path} has {len(line_ends)} lines: at least 3 are needed to cut it into train, "
            "valid and test"
        )
    lines = len(line_ends)
    held_out = max(1, lines // 20)
    train_end = int(line_ends[lines - 2 * held_out - 1])
    valid_end = int(line_ends[lines - held_out - 1])
    return {
        "train": numbers[:train_end],
        "valid": numbers[train_end:valid_end],
        "test": numbers[valid_end:],
    }
