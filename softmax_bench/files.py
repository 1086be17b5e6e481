"""Files that are written atomically, whatever happens meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A temporary path to write to in place of ``target``, whose folder is created if necessary.

    At the end, the written file replaces ``target``; after an error, it is dropped.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # A private folder, recognisable by its name if it is left behind.
    with TemporaryDirectory(dir=target.parent, prefix=_unfinished(target)) as own:
        unfinished = Path(own) / target.name
        yield unfinished
        _sync(unfinished)
        unfinished.replace(target)
    if os.name == "posix":  # elsewhere folders cannot be synchronised
        _sync(target.parent)


def write_file(target: Path, content: bytes) -> Path:
    """Write a file atomically into a folder, which is created if necessary."""
    with written_whole(target) as unfinished:
        unfinished.write_bytes(content)
    return target


def remove_unfinished(target: Path) -> None:
    """Remove leftovers of processes that were killed while writing the file."""
    for folder in target.parent.glob(f"{_unfinished(target)}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _unfinished(target: Path) -> str:
    """Prefix of a folder with a file that is being written."""
    return f".{target.name}.unfinished-"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
