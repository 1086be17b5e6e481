"""Marks the methods that draw classes, so that their time can be reported separately."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Watch = Callable[[], AbstractContextManager[object]]

_watch: ContextVar[Watch | None] = ContextVar("_watch", default=None)


def draws(method: Callable[P, R]) -> Callable[P, R]:
    """Mark a method that draws classes; everything it calls counts as drawing too.

    Measurements report the time of marked methods as the phase ``"draw"`` of a training step.
    """

    @functools.wraps(method)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        watch = _watch.get()
        if watch is None:
            return method(*args, **kwargs)
        token = _watch.set(None)  # count nested draws once
        try:
            with watch():
                return method(*args, **kwargs)
        finally:
            _watch.reset(token)

    return run


@contextmanager
def watching_draws(watch: Watch) -> Iterator[None]:
    """Enter ``watch()`` around every call of a marked method."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)
