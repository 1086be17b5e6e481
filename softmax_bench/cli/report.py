"""``softmax-bench report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softmax_bench.cli.output import make_console, show_report


def report(
    results: Annotated[Path, typer.Argument(help="Folder of results.")] = Path("runs/quick"),
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; RESULTS/report by default.")
    ] = None,
) -> None:
    """Draw plots, tables and one HTML page from stored results."""
    show_report(results, make_console(), out)
