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
    text: Annotated[
        bool, typer.Option("--text", help="Print it here with small plots, and write no files.")
    ] = False,
) -> None:
    """Draw plots, tables and one HTML page from stored results."""
    if text:
        from softmax_bench.records.frames import load_results
        from softmax_bench.report.show.terminal import print_report

        print_report(load_results(results), make_console())
    else:
        show_report(results, make_console(), out)
