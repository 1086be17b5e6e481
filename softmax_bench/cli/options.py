"""Options that commands share, and how their texts are read."""

from __future__ import annotations

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
