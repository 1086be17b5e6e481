"""The types of a study's values, in words."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec import inspect

_MOST = 2**63
"""Whole numbers must be smaller, as torch's seeds are."""


def expected(kind: Any) -> str:
    """What a field of type ``kind`` accepts: "a whole number of at least 1", "true or false"."""
    return _words(inspect.type_info(kind))


def fits(value: Any, kind: Any) -> bool:
    """Whether ``value`` has the type ``kind``, is finite, and is small enough to calculate with."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if isinstance(value, int) and not -_MOST <= value < _MOST:
        return False
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _words(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.UnionType):
        return " or ".join(
            _words(one) for one in kind.types if not isinstance(one, inspect.NoneType)
        )
    if isinstance(kind, inspect.VarTupleType):
        return f"a list, each {_words(kind.item_type)}"
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(f'"{value}"' for value in kind.values)
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        what = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        bounds = {"of at least": kind.ge, "above": kind.gt, "at most": kind.le, "below": kind.lt}
        limits = [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
        return f"{what} {' and '.join(limits)}".rstrip()
    return "text"
