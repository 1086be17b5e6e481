"""A folder that is written atomically."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from softmax_bench.errors import SoftmaxBenchError


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A private folder to fill, which is renamed to ``folder`` at the end of the block.

    If the block fails, nothing is left behind. If another process was faster, its folder is kept,
    as both contain the same.

    Raises:
        SoftmaxBenchError: The folder is not writable, or the disk is full.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True
        ) as made:
            yield Path(made)
            try:
                Path(made).rename(folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    except OSError as error:
        raise SoftmaxBenchError(
            f"cannot write {folder} ({error}): make room, or name another folder for "
            "what is kept between runs in the environment variable SOFTMAX_BENCH_CACHE"
        ) from error
