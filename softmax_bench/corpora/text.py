"""Texts as people have them: one file, a folder with a file a split, or folders of shards."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from softmax_bench.errors import SoftmaxBenchError

SPLITS = ("train", "valid", "test")
WHOLE = "whole"
"""In the place of the splits where a text is a single file, which is yet to be cut."""
PIECE = 2**18
"""Bytes of a piece of text. Its words stay in the processor's cache until they are counted."""

Files = Mapping[str, tuple[Path, ...]]
"""The files of each split, or of the whole."""

_LOOKED_AT = 8192
"""Bytes at the start of a file that tell whether it is binary."""
_SUFFIXES = (".txt", ".txt.gz", ".tokens")
"""Of the texts in a folder; ``.tokens`` as in WikiText's ``wiki.train.tokens``."""
_BILLION = {
    "train": "training-monolingual.tokenized.shuffled/news.en-*-of-00100",
    "valid": "heldout-monolingual.tokenized.shuffled/news.en.heldout-00001-of-00050",
    "test": "heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050",
}
"""Shards of the One Billion Word corpus; published perplexities are those of this test shard."""


def find_files(path: Path) -> Files:
    """The files of the text at ``path``.

    It is a file; or a folder that has for each split a file (``train.txt``, the same with a
    prefix: ``ptb.train.txt``, ``wiki.train.tokens``, or gzip of it) or a folder of shards, read
    in the order of their names; or the One Billion Word corpus as it is distributed.

    Raises:
        SoftmaxBenchError: There is no such text.
    """
    if path.is_file():
        return {WHOLE: (path,)}
    if not path.is_dir():
        raise SoftmaxBenchError(
            f"no text at {path}: expected a text file, or a folder with train, valid and test files"
        )
    billion = {split: tuple(sorted(path.glob(pattern))) for split, pattern in _BILLION.items()}
    if all(billion.values()):
        return billion
    return {split: _find_split(path, split) for split in SPLITS}


def _find_split(folder: Path, split: str) -> tuple[Path, ...]:
    if (folder / split).is_dir():
        shards = [file for file in sorted((folder / split).iterdir()) if file.is_file()]
        shards = [file for file in shards if not file.name.startswith(".")]
        if shards:
            return tuple(shards)
    for suffix in _SUFFIXES:
        names = [folder / f"{split}{suffix}", *sorted(folder.glob(f"*.{split}{suffix}"))]
        found = [path for path in names if path.is_file()]
        if len(found) > 1:
            raise SoftmaxBenchError(
                f"{folder} has more than one {split} text: {', '.join(p.name for p in found)}"
            )
        if found:
            return (found[0],)
    wanted = ", ".join(f"{split}{suffix}" for suffix in _SUFFIXES)
    raise SoftmaxBenchError(
        f"{folder} has no {split} text: looked for {wanted}, for the same with a prefix "
        f"(as in ptb.{split}.txt), and for a folder {split} of shards"
    )


def content_hash(files: Files) -> str:
    """sha256 of the files' content as it lies on disk, split by split; their names don't count.

    Raises:
        SoftmaxBenchError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for split, paths in files.items():
        for path in paths:
            try:
                packing = "gzip" if _is_gzip(path) else "plain"
                digest.update(f"{split} {packing} {path.stat().st_size}\n".encode())
                with path.open("rb") as file:
                    while block := file.read(2**20):
                        digest.update(block)
            except OSError as error:
                raise SoftmaxBenchError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def pieces(
    path: Path, size: int = PIECE, on_bytes: Callable[[int], None] = lambda count: None
) -> Iterator[str]:
    """The text of a file in pieces that end where a word ends; a last line gets its end.

    Args:
        path: A file of UTF-8, or gzip of it (by its name's ending).
        size: Bytes of a piece, about; a longer word is one piece.
        on_bytes: Called with the number of bytes of the file that were read.

    Raises:
        SoftmaxBenchError: The file is binary, not UTF-8, or a broken gzip.
    """
    begun: list[bytes] = []  # a word, or more, whose end was not yet read
    offset = 0
    line_open = False
    for block in _blocks(path, size, on_bytes):
        line_open = not block.endswith(b"\n")
        # \r is no place to cut: \n may follow. Other white space of Unicode is rare.
        cut = max(block.rfind(b"\n"), block.rfind(b" "), block.rfind(b"\t")) + 1
        if not cut:
            begun.append(block)
            continue
        piece = b"".join([*begun, block[:cut]])
        begun = [block[cut:]]
        yield _decode(path, piece, offset)
        offset += len(piece)
    if line_open:
        yield _decode(path, b"".join([*begun, b"\n"]), offset)


def _is_gzip(path: Path) -> bool:
    return path.suffix == ".gz"


def _blocks(path: Path, size: int, on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb") as raw:
        file: BinaryIO = gzip.GzipFile(fileobj=raw) if _is_gzip(path) else raw  # type: ignore[assignment]
        place = 0
        while True:
            try:
                block = file.read(size)
            except (OSError, EOFError, zlib.error) as error:
                raise SoftmaxBenchError(
                    f"{path} is not a whole gzip file ({error}): fetch or pack it again"
                ) from error
            on_bytes(raw.tell() - place)
            place = raw.tell()
            if not block:
                return
            yield block


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
