"""``softmax-bench layers``."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Annotated

import typer

from softmax_bench.cli.output import make_console

if TYPE_CHECKING:
    from softmax_bench.layers import OutputLayer


def list_layers(
    name: Annotated[
        str | None, typer.Argument(help="One layer, whose options are explained.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option(help="Print the page docs/layers.md as Markdown.")
    ] = False,
) -> None:
    """List the output layers, including those of installed packages, or explain one of them."""
    from rich.table import Table
    from rich.text import Text

    from softmax_bench.layers import CommonOptions
    from softmax_bench.layers.options import layer_options
    from softmax_bench.layers.registry import layer_names, layer_package, parse_spec

    if markdown:
        from softmax_bench.measure import catalogue

        print(catalogue.markdown(layer_names()), end="")
        return
    if name is not None:
        layer, _ = parse_spec(name)
        _explain(layer)
        return
    shared = list(CommonOptions.__annotations__)
    table = Table("layer", "good for", "own options", "source")
    table.caption = f"All take {', '.join(shared)} too. More: docs/layers.md"
    for each in layer_names():
        layer, _ = parse_spec(each)
        package = layer_package(each)
        title = f"{each}\nfrom {package}" if package else each
        options = [option for option in layer_options(layer) if option not in shared]
        cells = [title, layer.good_for, ", ".join(options), layer.source]
        table.add_row(*map(Text, cells))
    make_console().print(table)


def _explain(layer: type[OutputLayer]) -> None:
    """Print a layer's own options, what they mean, and what it shares with others."""
    own = inspect.signature(layer).parameters.values()
    options = [
        re.sub(r": '([^']*)'", r": \1", str(one)) for one in own if one.kind is one.KEYWORD_ONLY
    ]
    print(f"{layer.name}({', '.join(options)})", inspect.getdoc(layer), sep="\n\n")
    shared = [base.options_type for base in layer.__mro__ if hasattr(base, "options_type")]
    for kind in dict.fromkeys(shared):
        print("", inspect.getdoc(kind), sep="\n")
