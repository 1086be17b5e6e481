"""The version of the training code: a hash of the sources that affect training."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from pathlib import Path

import numpy as np
import torch

_SHOWING = ("cli", "report")
"""Packages that show results and do not affect them."""


def code_version(*classes: type) -> str:
    """A hash of the package's sources, those of the classes, and the versions of torch and numpy.

    Unlike a commit, it distinguishes states of a file that is being edited, and it is also known
    for an installed package.
    """
    root = Path(__file__).parents[1]
    sources = {
        path for path in root.rglob("*.py") if path.relative_to(root).parts[0] not in _SHOWING
    }
    for each in classes:
        with contextlib.suppress(TypeError):  # a class defined interactively has no source
            sources.add(Path(inspect.getfile(each)))
    digest = hashlib.sha256(f"{torch.__version__} {np.__version__}".encode())
    for content in sorted(path.read_bytes() for path in sources):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]
