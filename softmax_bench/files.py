"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path to write at, in place of ``target``, whose folder is made if absent.

    What was written takes the place of ``target`` at the end, and is dropped after an error.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # A folder that nobody else can look into, and that is known for what it is if it stays.
    with TemporaryDirectory(dir=target.parent, prefix=_unfinished(target)) as own:
        unfinished = Path(own) / target.name
        yield unfinished
        _sync(unfinished)
        unfinished.replace(target)
    if os.name == "posix":  # elsewhere folders cannot be synchronised
        _sync(target.parent)


def write_file(target: Path, content: bytes) -> Path:
    """Write a file, whole or not at all, into a folder that is made if absent."""
    with written_whole(target) as unfinished:
        unfinished.write_bytes(content)
    return target


def remove_unfinished(target: Path) -> None:
    """Remove what processes that were killed while they wrote the file have left."""
    for folder in target.parent.glob(f"{_unfinished(target)}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _unfinished(target: Path) -> str:
    """Start of the name of a folder with a file that is being written."""
    return f".{target.name}.unfinished-"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
