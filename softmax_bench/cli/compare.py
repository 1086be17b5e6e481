"""``softmax-bench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softmax_bench.cli.output import make_console
from softmax_bench.errors import SoftmaxBenchError


def compare(
    a: Annotated[Path, typer.Argument(help="Folder of results.")],
    b: Annotated[Path | None, typer.Argument(help="Another one, compared at equal layers.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Two layers, to compare within one folder.")
    ] = None,
    markdown: Annotated[bool, typer.Option(help="Print a Markdown table.")] = False,
) -> None:
    """Set two result sets, or two layers of one, side by side."""
    from softmax_bench.report.compare import compare_layers, compare_results
    from softmax_bench.report.show_comparison import render
    from softmax_bench.study.frames import load_results
    from softmax_bench.study.plan import split_specs

    if (b is None) == (layers is None):
        raise SoftmaxBenchError(
            "give two folders, or one folder and --layers with two layers: "
            "'compare A B' or 'compare A --layers full,hierarchical'"
        )
    if b is not None:
        comparison = compare_results(load_results(a), load_results(b))
    else:
        pair = split_specs(layers or "")
        if len(pair) != 2:
            raise SoftmaxBenchError(f"--layers needs two layers, not {len(pair)}")
        comparison = compare_layers(load_results(a), *pair)
    render(comparison, make_console(), markdown=markdown)
