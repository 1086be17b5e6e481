"""Functions that ``torch.compile`` must not trace."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def untraced(function: Callable[P, R]) -> Callable[P, R]:
    """Run ``function`` eagerly, even inside a compiled model, after a graph break.

    If traced, blocked passes would be unrolled, shapes that depend on a sample would be recompiled
    again and again, sparse gradients would not be supported, and random draws would differ.
    """
    eager: Callable[P, R] | None = None

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal eager
        if not torch.compiler.is_compiling():
            return function(*args, **kwargs)
        if eager is None:  # imported late, because it imports the compiler, which takes a second
            eager = torch.compiler.disable(function)
        return eager(*args, **kwargs)

    return run
