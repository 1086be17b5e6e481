"""What ``torch.compile`` must not look into."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def untraced(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` as it is, also inside a compiled model, which has a graph break before it.

    Traced, blocked passes would be unrolled, shapes that depend on a sample would be compiled
    again and again, sparse gradients are not supported, and random draws would be others.
    """
    eager: Callable[P, R] | None = None

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal eager
        if not torch.compiler.is_compiling():
            return function(*args, **kwargs)
        if eager is None:  # made late, because it imports the compiler, which takes a second
            eager = torch.compiler.disable(function)
        return eager(*args, **kwargs)

    return run
