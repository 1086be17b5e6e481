"""``softmax-bench layers``."""

from __future__ import annotations

from typing import Annotated

import typer

from softmax_bench.cli.output import make_console


def list_layers(
    markdown: Annotated[
        bool, typer.Option(help="Print the page docs/layers.md as Markdown.")
    ] = False,
) -> None:
    """List the output layers and their options, including those of installed packages."""
    from rich.table import Table
    from rich.text import Text

    from softmax_bench.layers import CommonOptions
    from softmax_bench.layers.options import layer_options
    from softmax_bench.layers.registry import layer_names, layer_package, parse_spec

    if markdown:
        from softmax_bench.measure import catalogue

        print(catalogue.markdown(layer_names()), end="")
        return
    shared = list(CommonOptions.__annotations__)
    table = Table("layer", "good for", "own options", "source")
    table.caption = f"All take {', '.join(shared)} too. More: docs/layers.md"
    for name in layer_names():
        layer, _ = parse_spec(name)
        package = layer_package(name)
        title = f"{name}\nfrom {package}" if package else name
        own = [option for option in layer_options(layer) if option not in shared]
        cells = [title, layer.good_for, ", ".join(own), layer.source]
        table.add_row(*map(Text, cells))
    make_console().print(table)
