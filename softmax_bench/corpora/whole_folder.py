"""A folder that is there whole or not at all."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from softmax_bench.errors import SoftmaxBenchError


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A private folder to fill, which takes the name ``folder`` at the end of the block.

    If the block fails nothing is left behind. Where another process was faster its folder stays:
    both hold the same.

    Raises:
        SoftmaxBenchError: Nothing can be written there, or the disk is full.
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
