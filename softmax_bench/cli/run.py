"""``softmax-bench run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softmax_bench.cli.options import (
    DEFAULT_LAYERS,
    Layers,
    Out,
    Threads,
    numbers,
    usable_cores,
    vocab_sizes_of,
)
from softmax_bench.cli.output import make_console, show_report
from softmax_bench.errors import SoftmaxBenchError


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
        vocab_sizes=vocab_sizes_of(vocab_sizes),
        layers=split_specs(layers),
        learning_rates=numbers(learning_rates, "--learning-rates"),
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
        threads=threads or usable_cores(),
        device=device,
    )
    console = make_console()
    failed = session.run(choices, out, time_budget=time_budget, console=console)
    show_report(out, console)
    if failed:
        raise SoftmaxBenchError(f"{failed} of the trials diverged, as told above")
