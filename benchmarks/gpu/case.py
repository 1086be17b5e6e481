"""One case to measure, under a name by which it is not measured twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Figures = dict[str, str | float | bool | None]
"""A row of a table."""


@dataclass(frozen=True)
class Case:
    """A unique name within its part, and the function that measures its figures."""

    name: str
    run: Callable[[], Figures]
