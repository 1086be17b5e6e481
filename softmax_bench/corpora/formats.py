"""Compression and encoding of a text file, detected by its first bytes and not by its name."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import stat
import zlib
from collections.abc import Callable, Iterator
from io import BufferedIOBase, BufferedReader
from pathlib import Path

from softmax_bench.errors import SoftmaxBenchError

_LOOKED_AT = 8192
"""Number of bytes at the start of a file that show whether it is binary."""
_PACKED: dict[bytes, Callable[[BufferedReader], BufferedIOBase]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)
_REFUSED = {
    b"PK\x03\x04": "a zip archive (or a document such as .docx or .epub): unpack it, or save the "
    "document as plain text",
    b"\x28\xb5\x2f\xfd": "packed with zstd: unpack it with 'zstd -d'",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    b"Rar!": "a rar archive: unpack it",
    b"%PDF": "a PDF document: extract its text, for example with 'pdftotext'",
}
_TAR, _TAR_PLACE = b"ustar", 257
_ENCODINGS = (  # UTF-32 first, because its mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, and the codecs that remove them."""
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b") | {127}


def blocks(path: Path, size: int, on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    """The unpacked content of a file as UTF-8, in blocks of about ``size`` bytes.

    gzip, bzip2 and xz are unpacked. A byte order mark selects UTF-8, UTF-16 or UTF-32; without one,
    UTF-8 is assumed but not checked.

    Raises:
        SoftmaxBenchError: The file is another kind of archive, binary or damaged.
    """
    with path.open("rb") as raw:
        file = _unpacked(raw)
        first = _read(path, file, max(size, _LOOKED_AT))
        _check_text(path, first)
        encoding = next((name for mark, name in _ENCODINGS if first.startswith(mark)), None)
        decoder = codecs.getincrementaldecoder(encoding)() if encoding else None
        block, place = first, 0
        while block:
            on_bytes(raw.tell() - place)
            place = raw.tell()
            following = _read(path, file, size)
            yield block if decoder is None else _recoded(path, decoder, block, not following)
            block = following


def _unpacked(raw: BufferedReader) -> BufferedIOBase:
    head = raw.read(max(map(len, _PACKED)))
    raw.seek(0)
    for magic, opened in _PACKED.items():
        if head.startswith(magic):
            return opened(raw)
    return raw


def _read(path: Path, file: BufferedIOBase, size: int) -> bytes:
    try:
        return file.read(size)
    except _DAMAGED as error:
        raise SoftmaxBenchError(
            f"{path} is damaged and cannot be unpacked ({error}): download or compress it again"
        ) from error


def _recoded(path: Path, decoder: codecs.IncrementalDecoder, block: bytes, last: bool) -> bytes:
    try:
        return decoder.decode(block, last).encode()
    except UnicodeError as error:
        raise SoftmaxBenchError(
            f"{path} begins with the byte order mark of another encoding than its text has "
            f"({error}): save it as UTF-8"
        ) from error


def _check_text(path: Path, first: bytes) -> None:
    """Raise a SoftmaxBenchError if the beginning of a file shows that it is not text."""
    what = next((what for magic, what in _REFUSED.items() if first.startswith(magic)), None)
    if what is None and first[_TAR_PLACE:].startswith(_TAR):
        what = "a tar archive: unpack it, and name the folder"
    if what is not None:
        raise SoftmaxBenchError(f"{path} is {what}")
    head = first[:_LOOKED_AT]
    if any(head.startswith(mark) for mark, _ in _ENCODINGS):
        return
    # Real texts (such as the Latin Library) may contain a stray zero far inside, which counts as a
    # character.
    zero = head.find(0)
    if zero >= 0:
        raise SoftmaxBenchError(f"{path} is not text: byte {zero} is zero; {_about_zeros(head)}")


def _about_zeros(head: bytes) -> str:
    for name, half in (("utf-16le", head[1::2]), ("utf-16be", head[::2])):
        if half.count(0) > len(half) / 3:
            return f"it may be UTF-16 without a byte order mark: iconv -f {name} -t utf-8"
    if looks_binary(head):
        return "it looks like binary data"
    return "remove such bytes, for example with tr -d '\\000'"


def looks_binary(data: bytes) -> bool:
    """Whether control characters are more frequent than in any text."""
    head = data[:_LOOKED_AT]
    return sum(byte in _CONTROL for byte in head) > len(head) / 20


def not_a_file(path: Path) -> str:
    """What is at a path that is neither file nor folder, and what to do about it; or empty."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    what = (
        "a pipe"
        if stat.S_ISFIFO(mode)
        else "a device"
        if stat.S_ISCHR(mode)
        else "not a regular file"
    )
    return f"{path} is {what}: a text is read more than once, so write it to a file first"
