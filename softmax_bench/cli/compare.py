"""``softmax-bench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softmax_bench.cli.output import make_console
from softmax_bench.errors import SoftmaxBenchError

if TYPE_CHECKING:
    from softmax_bench.records.frames import Results


def compare(
    a: Annotated[
        Path, typer.Argument(help="Folder of results, or a file of pytest --benchmark-json.")
    ],
    b: Annotated[
        Path | None, typer.Argument(help="Results to compare with, of the same kind.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Two layers, A and B, to compare within one folder.")
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            help="Exit with status 1 if the ratio A / B of time, memory or perplexity is clearly "
            "beyond a bound: 'time > 1.1' holds if the whole 95 % interval lies above 1.1. Times "
            "disturbed by other processes are not judged. Repeatable."
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option(help="Print Markdown, for example for a pull request.")
    ] = False,
) -> None:
    """Compare two result sets, or two layers of one."""
    from softmax_bench.layers import split_specs
    from softmax_bench.report.comparison import show as show_comparison
    from softmax_bench.report.comparison.compare import compare_layers, compare_results
    from softmax_bench.report.comparison.conditions import read_conditions

    conditions = read_conditions(fail_if or [])
    if not a.exists():
        raise SoftmaxBenchError(f"there are no results at {a}")
    if (b is None) == (layers is None):
        raise SoftmaxBenchError(
            "give two folders, or one folder and --layers with two layers: "
            "'compare A B' or 'compare A --layers full,hierarchical'"
        )
    if b is not None:
        comparison = compare_results(_load(a), _load(b), names=(str(a), str(b)))
    else:
        pair = split_specs(layers or "")
        if len(pair) != 2:
            raise SoftmaxBenchError(f"--layers needs two layers, not {len(pair)}")
        # pytest-benchmark finishes one case before the next, so its layers are not timed in
        # alternation
        comparison = compare_layers(_load(a), *pair, paired=not a.is_file())
    outcomes = [condition.check(comparison.table) for condition in conditions]
    console = make_console()
    if markdown:
        console.out(show_comparison.markdown(comparison), end="", highlight=False)
        console.out("".join(f"\n```\n{outcome}\n```\n" for outcome in outcomes), highlight=False)
    else:
        show_comparison.print_comparison(comparison, console)
        for outcome in outcomes:
            style = "red" if outcome.met else ""
            console.print(str(outcome), style=style, markup=False, highlight=False)
    if any(outcome.met for outcome in outcomes):
        raise typer.Exit(1)


def _load(path: Path) -> Results:
    from softmax_bench.records.frames import load_results
    from softmax_bench.records.pytest_benchmark import read_pytest_benchmark

    return read_pytest_benchmark(path) if path.is_file() else load_results(path)
