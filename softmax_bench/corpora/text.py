"""Layouts of text: one file, a folder with a file per split, or folders of shards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from softmax_bench.corpora.formats import blocks, looks_binary, not_a_file
from softmax_bench.errors import SoftmaxBenchError

SPLITS = ("train", "valid", "test")
WHOLE = "whole"
"""Stands for the splits of a single-file text that is yet to be cut."""
PIECE = 2**18
"""Bytes per piece of text, so that its words stay in the processor's cache until they are counted.
"""

Files = Mapping[str, tuple[Path, ...]]
"""The files of each split, or of the whole."""

_SUFFIXES = tuple(
    name + packed for packed in ("", ".gz", ".bz2", ".xz") for name in (".txt", ".tokens")
)
"""Suffixes of the texts in a folder; ``.tokens`` as in WikiText's ``wiki.train.tokens``."""
_HELD_OUT = 20
"""Of this many texts without splits, one is for validation and one for testing."""
_BILLION = {
    "train": "training-monolingual.tokenized.shuffled/news.en-*-of-00100",
    "valid": "heldout-monolingual.tokenized.shuffled/news.en.heldout-00001-of-00050",
    "test": "heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050",
}
"""Shards of the One Billion Word corpus; published perplexities are those of this test shard."""


def find_files(path: Path) -> Files:
    """Find the files of the text at ``path``.

    The path may be a file, or a folder with a file per split (``train.txt``, also with a prefix as
    in ``ptb.train.txt``, ``wiki.train.tokens``, or compressed) or a folder of shards per split,
    read in the order of their names. It may also be the One Billion Word corpus as distributed, or
    a folder of texts without splits: in the order of their names, every twentieth is for testing
    and the one before it for validation (one or two texts are cut like a single file).

    Raises:
        SoftmaxBenchError: There is no such text, or a split is part of another.
    """
    if path.is_file():
        return {WHOLE: (path,)}
    if not path.is_dir():
        raise SoftmaxBenchError(
            not_a_file(path)
            or f"no text at {path}: expected a text file, or a folder with train, valid and test "
            "files"
        )
    billion = {split: tuple(sorted(path.glob(pattern))) for split, pattern in _BILLION.items()}
    if all(billion.values()):
        return billion
    splits = {split: _find_split(path, split) for split in SPLITS}
    if not any(splits.values()):
        splits = _split_by_file(path)
    for split, files in splits.items():
        if not files:
            names = ", ".join(f"{split}{suffix}" for suffix in _SUFFIXES)
            raise SoftmaxBenchError(
                f"{path} has no {split} text: looked for {names}, for the same with a prefix "
                f"(as in ptb.{split}.txt), and for a folder {split} of shards"
            )
    _check_apart(splits)
    return splits


def how_split(path: Path, files: Files) -> str:
    """How the text at ``path`` was split, in words, if it came without splits."""
    if WHOLE in files:
        return "cut into 90 % train, 5 % valid and 5 % test text"
    split_here = files["train"][0].parent == path and not _find_split(path, "train")
    counts = ", ".join(f"{len(paths):,} {split}" for split, paths in files.items())
    return f"its texts are split by file: {counts}" if split_here else ""


def _find_split(folder: Path, split: str) -> tuple[Path, ...]:
    if (folder / split).is_dir():
        shards = _visible_files(folder / split)
        if shards:
            return tuple(shards)
    for suffix in _SUFFIXES:
        names = [folder / f"{split}{suffix}", *sorted(folder.glob(f"*.{split}{suffix}"))]
        files = [path for path in names if path.is_file()]
        if len(files) > 1:
            raise SoftmaxBenchError(
                f"{folder} has more than one {split} text: {', '.join(p.name for p in files)}"
            )
        if files:
            return (files[0],)
    return ()


def _visible_files(folder: Path) -> list[Path]:
    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    return [file for file in files if not file.name.startswith(".")]


def _split_by_file(folder: Path) -> dict[str, tuple[Path, ...]]:
    texts = [file for file in _visible_files(folder) if file.name.endswith(_SUFFIXES)]
    if not texts:
        raise SoftmaxBenchError(
            f"{folder} has no texts: expected train, valid and test files (or folders of shards), "
            f"or files that end in {', '.join(_SUFFIXES)}"
        )
    if len(texts) < len(SPLITS):
        return {WHOLE: tuple(texts)}
    every = len(texts) / max(1, len(texts) // _HELD_OUT)
    test = {int(every * number) - 1 for number in range(1, round(len(texts) / every) + 1)}
    valid = {place - 1 for place in test}
    splits = {"train": set(range(len(texts))) - test - valid, "valid": valid, "test": test}
    return {split: tuple(texts[n] for n in sorted(places)) for split, places in splits.items()}


def _check_apart(files: Files) -> None:
    """Raise a SoftmaxBenchError if two splits share a file, through any links."""
    seen: dict[tuple[int, int], tuple[str, Path]] = {}
    for split, paths in files.items():
        for path in paths:
            status = path.stat()
            other, first = seen.setdefault((status.st_dev, status.st_ino), (split, path))
            if other != split:
                raise SoftmaxBenchError(
                    f"{path} and {first} are the same file, in {split} and in {other}: a split "
                    "that is part of another measures nothing, so give each a text of its own"
                )


def content_hash(files: Files) -> str:
    """sha256 of the files' contents on disk, split by split, without their names.

    Raises:
        SoftmaxBenchError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for split, paths in files.items():
        for path in paths:
            try:
                digest.update(f"{split} {path.stat().st_size}\n".encode())
                with path.open("rb") as file:
                    while block := file.read(2**20):
                        digest.update(block)
            except OSError as error:
                raise SoftmaxBenchError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def pieces(
    path: Path, size: int = PIECE, on_bytes: Callable[[int], None] = lambda count: None
) -> Iterator[str]:
    """The text of a file in pieces that end with a word; a missing final line end is added.

    Args:
        path: A file that :func:`softmax_bench.corpora.formats.blocks` can read.
        size: Approximate number of bytes per piece; a longer word is one piece.
        on_bytes: Called with the number of bytes of the file that were read.

    Raises:
        SoftmaxBenchError: The file is not text, or is damaged.
    """
    begun: list[bytes] = []  # the beginning of a word whose end has not been read yet
    offset = 0
    line_open = binary = False
    for block in blocks(path, size, on_bytes):
        binary = binary or (offset == 0 and looks_binary(block))
        line_open = not block.endswith(b"\n")
        # Do not cut at \r, since \n may follow. Other Unicode white space is rare.
        cut = max(block.rfind(b"\n"), block.rfind(b" "), block.rfind(b"\t")) + 1
        if not cut:
            begun.append(block)
            continue
        piece = b"".join([*begun, block[:cut]])
        begun = [block[cut:]]
        yield _decode(path, piece, offset, binary)
        offset += len(piece)
    if line_open:
        yield _decode(path, b"".join([*begun, b"\n"]), offset, binary)


def _decode(path: Path, data: bytes, offset: int, binary: bool) -> str:
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        advice = (
            "it looks like binary data"
            if binary
            else "if it is in an older encoding convert it, as with iconv -f latin1 -t utf-8"
        )
        raise SoftmaxBenchError(
            f"{path} is not UTF-8: byte {offset + error.start} is 0x{data[error.start]:02x}; "
            f"{advice}"
        ) from error
