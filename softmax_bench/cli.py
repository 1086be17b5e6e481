"""The command line. Heavy imports happen inside the commands, so that ``--help`` is instant."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softmax_bench.errors import SoftmaxBenchError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compare softmax approximations: speed, memory and perplexity as the vocabulary grows.",
)

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


@app.command()
def run(
    corpus: Annotated[
        str,
        typer.Argument(help="'synthetic', a text file, or a folder with train, valid and test."),
    ] = "synthetic",
    layers: Layers = DEFAULT_LAYERS,
    vocab_sizes: Annotated[
        str, typer.Option(help="Vocabulary sizes, separated by commas; 'all' keeps every type.")
    ] = "1000,4000,16000",
    learning_rates: Annotated[
        str,
        typer.Option(help="Learning rates; of several, each layer gets the one it does best with."),
    ] = "0.1",
    max_tokens: Annotated[int, typer.Option(help="Training budget in tokens.")] = 100_000,
    tune_tokens: Annotated[
        int, typer.Option(help="Budget of each rate where there are several.")
    ] = 100_000,
    encoder: Annotated[str, typer.Option(help="rnn, gru, lstm, nplm, lbl, transformer.")] = "lstm",
    hidden_size: Annotated[int, typer.Option(help="Size of a hidden state.")] = 128,
    embedding_size: Annotated[
        int | None, typer.Option(help="Size of a word vector; the hidden size by default.")
    ] = None,
    num_layers: Annotated[int, typer.Option(help="Layers of the encoder.")] = 1,
    dropout: Annotated[float, typer.Option(help="Dropout probability.")] = 0.0,
    tied: Annotated[bool, typer.Option(help="Tie the embedding to the output weight.")] = False,
    optimizer: Annotated[str, typer.Option(help="sgd, adagrad or adam.")] = "adagrad",
    clip_norm: Annotated[float, typer.Option(help="Greatest norm of all gradients.")] = 5.0,
    batch_size: Annotated[int, typer.Option(help="Streams side by side.")] = 20,
    bptt: Annotated[int, typer.Option(help="Time steps that gradients flow back.")] = 20,
    time_budget: Annotated[
        float, typer.Option(help="Seconds for timing the layers at each vocabulary size.")
    ] = 8.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    num_seeds: Annotated[
        int, typer.Option(help="Models of each layer, with seeds from --seed on.")
    ] = 1,
    threads: Threads = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Out = Path("runs/latest"),
) -> None:
    """Train the shared language model with each layer, time the layers, write the report."""
    from softmax_bench.study import session
    from softmax_bench.study.plan import Choices, split_specs

    choices = Choices(
        corpus=corpus,
        vocab_sizes=_vocab_sizes(vocab_sizes),
        layers=split_specs(layers),
        learning_rates=_numbers(learning_rates, "--learning-rates"),
        encoder=encoder,
        embedding_size=hidden_size if embedding_size is None else embedding_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        dropout=dropout,
        tied=tied,
        optimizer=optimizer,
        clip_norm=clip_norm,
        batch_size=batch_size,
        bptt=bptt,
        max_tokens=max_tokens,
        tune_tokens=tune_tokens,
        seed=seed,
        num_seeds=num_seeds,
        threads=threads or _cores(),
        device=device,
    )
    console = _console()
    failed = session.run(choices, out, time_budget=time_budget, console=console)
    _report(out, console)
    if failed:
        raise SoftmaxBenchError(f"{failed} of the trials diverged, as told above")


@app.command(name="time")
def time_layers(
    layers: Layers = DEFAULT_LAYERS,
    vocab_sizes: Annotated[
        str, typer.Option(help="Vocabulary sizes, separated by commas.")
    ] = "1000,10000,100000,1000000",
    hidden_size: Annotated[int, typer.Option(help="Size of a hidden state.")] = 256,
    num_tokens: Annotated[int, typer.Option(help="Targets in a step.")] = 700,
    optimizer: Annotated[str, typer.Option(help="sgd, adagrad or adam.")] = "adagrad",
    clip_norm: Annotated[float, typer.Option(help="Greatest norm of all gradients.")] = 5.0,
    time_budget: Annotated[
        float, typer.Option(help="Seconds for the layers of one vocabulary size together.")
    ] = 30.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    threads: Threads = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Out = Path("runs/speed"),
) -> None:
    """Time one training step of each layer alone, on random hidden states and Zipf targets."""
    from softmax_bench.study import session
    from softmax_bench.study.plan import check_layers, split_specs
    from softmax_bench.study.record import SpeedTrial

    console = _console()
    sizes = [int(size) for size in _numbers(vocab_sizes, "--vocab-sizes")]
    specs = split_specs(layers)
    check_layers(specs, optimizer, device)
    groups = [
        [
            SpeedTrial(
                layer=layer,
                vocab_size=size,
                hidden_size=hidden_size,
                num_tokens=num_tokens,
                optimizer=optimizer,
                clip_norm=clip_norm,
                seed=seed,
                threads=threads or _cores(),
                device=device,
                dtype="float32",
            )
            for layer in specs
        ]
        for size in sizes
    ]
    session.time_groups(groups, out, time_budget=time_budget, console=console)
    _report(out, console)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="Folder of results.")] = Path("runs/latest"),
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; RESULTS/report by default.")
    ] = None,
) -> None:
    """Draw plots, tables and one HTML page from stored results."""
    _report(results, _console(), out)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Folder of results.")],
    b: Annotated[Path | None, typer.Argument(help="Another one, compared at equal layers.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Two layers, to compare within one folder.")
    ] = None,
    markdown: Annotated[bool, typer.Option(help="Print a Markdown table.")] = False,
) -> None:
    """Set two result sets, or two layers of one, side by side."""
    from softmax_bench.report.compare import compare_layers, compare_results, render
    from softmax_bench.study.plan import split_specs
    from softmax_bench.study.store import load_results

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
    render(comparison, _console(), markdown=markdown)


@app.command()
def env() -> None:
    """Print the machine and the versions that a result made here would carry."""
    from softmax_bench.measure import describe_environment

    for name, value in describe_environment().items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {one}" for key, one in value.items()) or "none"
        print(f"{name + ':':<14} {value}")


@app.command(name="layers")
def list_layers(
    markdown: Annotated[bool, typer.Option(help="Print the page docs/layers.md.")] = False,
) -> None:
    """List the output layers and their options, those of installed packages included."""
    from rich.table import Table
    from rich.text import Text

    from softmax_bench.layers import CommonOptions
    from softmax_bench.layers.registry import layer_names, layer_options, layer_package, parse_spec

    if markdown:
        from softmax_bench.measure import catalogue

        print(catalogue.markdown(layer_names()), end="")
        return
    shared = list(CommonOptions.__annotations__)
    table = Table("layer", "good for", "options of its own", "source")
    table.caption = f"All take {', '.join(shared)} too. More: docs/layers.md"
    for name in layer_names():
        layer, _ = parse_spec(name)
        package = layer_package(name)
        title = f"{name}\nfrom {package}" if package else name
        own = [option for option in layer_options(layer) if option not in shared]
        cells = [title, layer.good_for, ", ".join(own), layer.source]
        table.add_row(*map(Text, cells))
    _console().print(table)


def _report(results: Path, console: Console, out: Path | None = None) -> None:
    from softmax_bench.report import print_table, summary_table, write_report
    from softmax_bench.study.store import load_results

    loaded = load_results(results)
    print_table(summary_table(loaded), console)
    page = write_report(results, out)
    console.print(f"Report: {page.resolve()}", soft_wrap=True, highlight=False)


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise SoftmaxBenchError(
            f"{option} takes numbers separated by commas, not {text!r}"
        ) from None


def _vocab_sizes(text: str) -> list[int | None]:
    return [
        None if part.strip() == "all" else int(_numbers(part, "--vocab-sizes")[0])
        for part in text.split(",")
    ]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _console() -> Console:
    from rich.console import Console

    return Console()


def main() -> None:
    """Entry point: bad input ends with a message and status 2, not with a traceback."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    sys.path.append(str(Path.cwd()))  # for a layer module:Class that lies here; last, to hide none
    try:
        app()
    except SoftmaxBenchError as error:
        print(f"softmax-bench: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nsoftmax-bench: stopped; finished trials are kept", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
