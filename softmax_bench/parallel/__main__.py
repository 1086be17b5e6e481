"""Train the shared language model on several processes, and compare it with a single one.

    torchrun --nproc-per-node 2 -m softmax_bench.parallel --layer sampled --divide vocabulary

Every process reads its own streams of the batch. With ``--divide data``, each has a replica of the
model; with ``--divide vocabulary``, each has a replica of the encoder and its own rows of the
output layer. The first process then trains one model on the joint batch and prints how far they
differ.

With SGD, the difference is rounding. The first step of Adagrad and Adam is as long for a gradient
of mere rounding errors as for any other, so use ``--dtype float64`` for these comparisons.
"""

from __future__ import annotations

import itertools
import math
import time
from enum import StrEnum
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from softmax_bench.corpora import load_corpus
from softmax_bench.errors import brief_errors
from softmax_bench.layers import create_layer
from softmax_bench.lm import (
    LanguageModel,
    Optimizer,
    Streams,
    clip_grad_norm,
    make_optimizer,
    make_streams,
)
from softmax_bench.parallel.create import create_parallel_layer
from softmax_bench.parallel.processes import joined_processes
from softmax_bench.parallel.traffic import Traffic
from softmax_bench.parallel.training.data import DataParallel
from softmax_bench.parallel.training.train import nats, train_steps

EVALUATED = 20_000
"""Evaluated words of the validation text."""


class Precision(StrEnum):
    """Precision of parameters and hidden states."""

    float32 = "float32"
    float64 = "float64"


class Divide(StrEnum):
    """What the processes divide besides the batch."""

    data = "data"
    vocabulary = "vocabulary"


def train(
    corpus: Annotated[
        str, typer.Argument(help="A corpus, as for softmax-bench run.")
    ] = "synthetic",
    layer: Annotated[
        str, typer.Option(help="Output layer, with options in parentheses.")
    ] = "sampled",
    divide: Annotated[
        Divide, typer.Option(help="What to divide over the processes besides the batch.")
    ] = Divide.data,
    vocab_size: Annotated[int, typer.Option(help="Vocabulary size.")] = 10_000,
    hidden_size: Annotated[int, typer.Option(help="Size of hidden states and word vectors.")] = 128,
    optimizer: Annotated[str, typer.Option(help="sgd, adagrad, adam or adamw.")] = "sgd",
    learning_rate: Annotated[float, typer.Option(help="Learning rate.")] = 1.0,
    clip_norm: Annotated[float, typer.Option(help="Maximum norm of all gradients together.")] = 5.0,
    batch_size: Annotated[int, typer.Option(help="Streams of all processes together.")] = 20,
    bptt: Annotated[int, typer.Option(help="Time steps of backpropagation.")] = 20,
    steps: Annotated[int, typer.Option(help="Number of training steps.")] = 50,
    dtype: Annotated[
        Precision, typer.Option(help="Precision of the parameters.")
    ] = Precision.float32,
    seed: Annotated[int, typer.Option(help="Random seed, the same on all processes.")] = 0,
    check: Annotated[bool, typer.Option(help="Also train one model on the joint batch.")] = True,
) -> None:
    """Train the shared language model on the processes that torchrun started, and on one."""
    torch.manual_seed(seed)
    text = load_corpus(corpus, vocab_size=vocab_size, seed=seed)
    streams = make_streams(text.train, batch_size, text.eos_id)
    valid = make_streams(text.valid[:EVALUATED], batch_size, text.eos_id)
    sizes = hidden_size, text.vocab_size, text.class_counts
    own_layer = (
        create_layer(layer, *sizes, sparse=True)
        if divide is Divide.data
        else create_parallel_layer(layer, *sizes, tokens="divided", sparse=True)
    )
    number = getattr(torch, dtype.value)
    parallel = DataParallel(LanguageModel(own_layer, embedding_size=hidden_size).to(number))
    begin = {name: value.clone() for name, value in parallel.whole_state().items()}

    def optimizer_of(model: LanguageModel) -> Optimizer:
        return make_optimizer(optimizer, model.parameters(), learning_rate)

    first = dist.get_rank() == 0
    console = Console(quiet=not first)
    torch.manual_seed(seed)
    started = time.perf_counter()
    with _progress(console) as progress, Traffic() as traffic:
        bar = progress.add_task("", total=steps, loss=0.0)
        losses = train_steps(
            parallel,
            optimizer_of(parallel.model),
            streams,
            window=bptt,
            steps=steps,
            clip_norm=clip_norm,
            on_step=lambda loss: progress.update(bar, advance=1, loss=loss),
        )
    seconds = time.perf_counter() - started
    perplexity = math.exp(nats(parallel, valid, bptt))
    state = parallel.whole_state()

    table = Table("", f"{dist.get_world_size()} processes", title=f"{layer}, {divide.value}")
    layer_parameters = sum(parameter.numel() for parameter in own_layer.parameters())
    table.add_row("layer's parameters, each process", f"{layer_parameters:,}")
    table.add_row("steps, tokens each", f"{steps}, {batch_size * bptt}")
    table.add_row("tokens per second", f"{steps * batch_size * bptt / seconds:,.0f}")
    table.add_row("MB sent a step, each process", f"{traffic.bytes / steps / 1e6:.3f}")
    table.add_row("loss, first and last", f"{losses[0]:.4f}, {losses[-1]:.4f}")
    table.add_row("valid perplexity, exact", f"{perplexity:.2f}")
    if check and first:
        single_layer = create_layer(layer, *sizes, sparse=True)
        single = LanguageModel(single_layer, embedding_size=hidden_size).to(number)
        single.load_state_dict(begin)
        torch.manual_seed(seed)
        single_losses = _alone(single, optimizer_of(single), streams, bptt, steps, clip_norm)
        parameter_difference = max(
            float((state[name] - value).abs().max()) for name, value in single.state_dict().items()
        )
        loss_difference = max(
            abs(one - other) for one, other in zip(losses, single_losses, strict=True)
        )
        table.add_row("largest difference of a loss", f"{loss_difference:.1e}")
        table.add_row("largest difference of a parameter", f"{parameter_difference:.1e}")
    console.print(table)


def _alone(
    model: LanguageModel,
    optimizer: Optimizer,
    streams: Streams,
    window: int,
    steps: int,
    clip_norm: float,
) -> list[float]:
    """The losses of the same steps in a single process, on the joint batch."""
    losses: list[float] = []
    while len(losses) < steps:
        state = None
        for inputs, targets in itertools.islice(streams.windows(window), steps - len(losses)):
            optimizer.zero_grad()
            loss, state = model(inputs, targets, state)
            loss.backward()
            clip_grad_norm(model.parameters(), clip_norm)
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
        console=console,
    )


def main() -> None:
    """Join the processes, train, and leave the group."""
    with brief_errors("softmax_bench.parallel"), joined_processes():
        typer.run(train)


if __name__ == "__main__":
    main()
