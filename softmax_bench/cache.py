"""The folder of everything that can be recreated and may be deleted."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``SOFTMAX_BENCH_CACHE``, or the system's folder for the user's caches."""
    chosen = os.environ.get("SOFTMAX_BENCH_CACHE")
    if chosen:
        return Path(chosen)
    import pooch

    return Path(pooch.os_cache("softmax-bench"))
