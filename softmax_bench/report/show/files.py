"""The report as files: one page, and every plot and table for use elsewhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.files import write_file
from softmax_bench.records.frames import Results, load_results
from softmax_bench.records.store import disk_full
from softmax_bench.report import plots
from softmax_bench.report.show.page import render_page
from softmax_bench.report.style import looks
from softmax_bench.report.tables.fidelity import fidelity_table
from softmax_bench.report.tables.price import price_table
from softmax_bench.report.tables.scaling import scaling_table
from softmax_bench.report.tables.shown import markdown_table
from softmax_bench.report.tables.summary import summary_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(
    results_folder: Path, out: Path | None = None, results: Results | None = None
) -> Path:
    """Write the report of a store.

    Args:
        results_folder: The store.
        out: Folder to write into, ``report`` inside the store by default.
        results: The store's results, if they have been read already.

    Returns:
        Path of the HTML page.

    Raises:
        SoftmaxBenchError: There are no results, or the report cannot be written. Each file is
            written atomically.
    """
    results = load_results(results_folder) if results is None else results
    out = results_folder / "report" if out is None else out
    try:
        return _write_files(results, out)
    except OSError as error:
        why = "no disk space left" if disk_full(error) else error
        raise SoftmaxBenchError(
            f"cannot write the report into {out} ({why}); the results are kept: make it later "
            f"with 'softmax-bench report {results_folder}', or elsewhere with --out"
        ) from error


def _write_files(results: Results, out: Path) -> Path:
    table = summary_table(results)
    write_file(out / "table.csv", table.to_csv(index=False).encode())
    write_file(out / "table.md", markdown_table(table).encode())
    for name, derived in (
        ("scaling", scaling_table(results)),
        ("price-table", price_table(results)),
        ("fidelity", fidelity_table(results)),
    ):
        if not derived.empty:
            write_file(out / f"{name}.csv", derived.to_csv(index=False).encode())
    charts = plots.charts(results)
    # A layer that was only tuned is in charts alone.
    look = looks(
        [*table["layer"], *(layer for chart in charts for layer in plots.layers_of(chart))]
    )
    for chart in charts:
        figure = plots.draw(chart, look)
        write_file(out / f"{chart.name}.png", _render(figure, "png"))
        figure.set_layout_engine("none")  # it is laid out
        write_file(out / f"{chart.name}.svg", _render(figure, "svg"))
        write_file(out / f"{chart.name}.csv", plots.chart_frame(chart).to_csv(index=False).encode())
    page = out / "index.html"
    write_file(page, render_page(results, charts, look).encode())
    return page


def _render(figure: Figure, kind: str) -> bytes:
    file = io.BytesIO()
    # A fixed salt and no date, so that the same results give the same file.
    with mpl.rc_context({"svg.hashsalt": "softmax-bench", "svg.fonttype": "path"}):
        figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()
