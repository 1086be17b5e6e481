"""What commands show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def make_console() -> Console:
    """Where commands print."""
    from rich.console import Console

    return Console()


def show_report(results: Path, console: Console, out: Path | None = None) -> None:
    """Print the table of the store ``results``, write its report, and say where that is."""
    from softmax_bench.report import print_table, summary_table, write_report
    from softmax_bench.study.frames import load_results

    loaded = load_results(results)
    print_table(summary_table(loaded), console)
    page = write_report(results, out)
    console.print(f"Report: {page.resolve()}", soft_wrap=True, highlight=False)
