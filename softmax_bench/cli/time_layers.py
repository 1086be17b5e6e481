"""``softmax-bench time``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softmax_bench.cli.options import DEFAULT_LAYERS, Layers, Out, Threads, numbers
from softmax_bench.cli.output import make_console, run_plan
from softmax_bench.errors import SoftmaxBenchError


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
    ] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    threads: Threads = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Out = Path("runs/speed"),
) -> None:
    """Time one training step of each layer alone, on random hidden states and Zipf targets."""
    from softmax_bench.layers import split_specs
    from softmax_bench.records.trial import SpeedTrial
    from softmax_bench.study.check import common_mistakes
    from softmax_bench.study.jobs.job import Limits
    from softmax_bench.study.plan.grid import usable_cores
    from softmax_bench.study.plan.plan import plan_timing

    sizes = [int(size) for size in numbers(vocab_sizes, "--vocab-sizes")]
    specs = split_specs(layers)
    for mistake in common_mistakes(specs, optimizer, device):
        raise SoftmaxBenchError(mistake.message)
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
                threads=threads or usable_cores(),
                device=device,
                dtype="float32",
            )
            for layer in specs
        ]
        for size in sizes
    ]
    run_plan(plan_timing(groups, time_budget, Limits()), out, make_console())
