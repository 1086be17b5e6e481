"""Where things are kept that can be made again: it may all be deleted."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``SOFTMAX_BENCH_CACHE``, or the folder that the system has for a user's caches."""
    chosen = os.environ.get("SOFTMAX_BENCH_CACHE")
    if chosen:
        return Path(chosen)
    import pooch

    return Path(pooch.os_cache("softmax-bench"))
