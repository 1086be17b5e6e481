"""Options that commands share, and how their texts are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from softmax_bench.errors import SoftmaxBenchError

DEFAULT_LAYERS = "full,hierarchical,nce,sampled"

Layers = Annotated[
    str,
    typer.Option(
        help="Output layers, separated by commas: names or package.module:Class, options in "
        "parentheses; or 'all'."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder of the results; what is there is kept.")]
Threads = Annotated[int, typer.Option(help="Threads; 0 for all cores of this machine.")]


def numbers(text: str, option: str) -> list[float]:
    """The numbers of a comma-separated text that was given to ``option``."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise SoftmaxBenchError(
            f"{option} takes numbers separated by commas, not {text!r}"
        ) from None


def vocab_sizes_of(text: str) -> list[int | None]:
    """Vocabulary sizes; None, written ``all``, keeps every type."""
    return [
        None if part.strip() == "all" else int(numbers(part, "--vocab-sizes")[0])
        for part in text.split(",")
    ]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
