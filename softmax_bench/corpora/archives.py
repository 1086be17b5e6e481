"""Unpacking untrusted archives: only plain files, only into the folder, only up to a limit."""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from softmax_bench.errors import SoftmaxBenchError


def unpack(archive: Path, folder: Path, *, limit: int) -> None:
    """Write the files of a zip or tar archive into ``folder``.

    Args:
        archive: An archive that :mod:`zipfile` or :mod:`tarfile` can read.
        folder: Existing files may be overwritten; after an error, it contains a part.
        limit: Maximum number of bytes of all files together.

    Raises:
        SoftmaxBenchError: A name leads out of ``folder``, an entry is neither file nor folder (a
            link, a device), there are more than ``limit`` bytes, or the archive is damaged.
    """
    written = 0
    try:
        for name, size, opened in _members(archive):
            written += size
            if written > limit:
                raise SoftmaxBenchError(
                    f"{archive} unpacks to more than the {limit:,} bytes that are allowed for it"
                )
            path = folder / _inside(archive, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with opened as packed, path.open("wb") as file:
                shutil.copyfileobj(packed, file, 2**20)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise SoftmaxBenchError(f"{archive} is a damaged archive ({error})") from error


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of the files; folders are created as needed."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if not made on Unix
                if info.is_dir():
                    continue
                if kind not in (0, stat.S_IFREG):
                    raise _not_plain(archive, info.filename)
                yield info.filename, info.file_size, packed.open(info)
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isdir():
                    continue
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise _not_plain(archive, member.name)
                yield member.name, member.size, content


def _inside(archive: Path, name: str) -> str:
    """The name, if it stays inside the folder on every system."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or path.root or ".." in path.parts or not path.parts:
            raise SoftmaxBenchError(f"{archive} is refused: {name!r} is outside its folder")
    return name


def _not_plain(archive: Path, name: str) -> SoftmaxBenchError:
    return SoftmaxBenchError(f"{archive} is refused: {name!r} is neither a file nor a folder")
