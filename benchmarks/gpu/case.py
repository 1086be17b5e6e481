"""One thing to find out, under a name by which it is not found out twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Figures = dict[str, str | float | bool | None]
"""A row of a table."""


@dataclass(frozen=True)
class Case:
    """A name, unique in its part, and what gives its figures."""

    name: str
    run: Callable[[], Figures]
