"""Options that several commands share, and how their values are parsed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from softmax_bench.errors import SoftmaxBenchError

DEFAULT_LAYERS = "full,hierarchical,nce,sampled"

LAYERS = typer.Option(
    help="Output layers, separated by commas: names or package.module:Class, options in "
    "parentheses; or 'all'."
)
Layers = Annotated[str, LAYERS]
Optimizer = Annotated[str, typer.Option(help="sgd, adagrad, adam or adamw.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Out = Annotated[Path, typer.Option(help="Folder of the results; existing results are kept.")]
Threads = Annotated[
    int,
    typer.Option(
        min=0, help="Number of threads; 0 for OMP_NUM_THREADS or else all cores of this machine."
    ),
]


def numbers(text: str, option: str) -> list[float]:
    """Parse the comma-separated numbers given to ``option``."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise SoftmaxBenchError(f"{option} must be numbers separated by commas, not {text!r}")
    return values
