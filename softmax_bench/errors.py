"""The exception for errors that users are meant to read, and helpers for its messages."""

from __future__ import annotations

import difflib
import numbers
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class SoftmaxBenchError(ValueError):
    """Bad input. The message says what was wrong and what would be right.

    Programs that run under :func:`brief_errors`, as the command line does, end with it.
    """


@contextmanager
def brief_errors(program: str) -> Iterator[None]:
    """End a program that was given bad input with a message and status 2, without a traceback."""
    try:
        yield
    except (SoftmaxBenchError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None:
            raise  # not about a file that the user named
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(2)


def nearest(wrong: str, right: Iterable[str]) -> str:
    """End an error message about an unknown name with the closest known name and all others."""
    known = sorted(right)
    if not known:
        return ""
    near = difflib.get_close_matches(wrong, known, n=1)
    hint = f": did you mean {near[0]!r}?" if near else "."
    return f"{hint} Known: {', '.join(known)}"


def check_positive(what: str, value: object) -> None:
    """Raise an error unless the value is a whole number of at least 1.

    Raises:
        SoftmaxBenchError: ``value``, which the message calls ``what``, is not.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise SoftmaxBenchError(f"{what} must be a positive whole number, not {value!r}")
