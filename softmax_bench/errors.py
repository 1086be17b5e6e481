"""The one exception of the package that a person, not a program, is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SoftmaxBenchError(ValueError):
    """Bad input. The message says what was wrong and what would be right.

    The command line prints it without a traceback and exits with status 2.
    """


def nearest(wrong: str, right: Iterable[str]) -> str:
    """The end of a message about an unknown name: the closest known name, then all of them."""
    known = sorted(right)
    near = difflib.get_close_matches(wrong, known, n=1)
    hint = f": did you mean {near[0]!r}?" if near else "."
    return f"{hint} Known: {', '.join(known)}"


def check_positive(what: str, value: object) -> None:
    """Refuse all but whole numbers from 1.

    Raises:
        SoftmaxBenchError: ``value``, which is called ``what``, is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SoftmaxBenchError(f"{what} must be a positive whole number, not {value!r}")
