"""``softmax-bench time``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softmax_bench.cli.options import DEFAULT_LAYERS, Device, Layers, Optimizer, Out, Seed, Threads
from softmax_bench.cli.output import make_console, run_plan
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.records.trial import CLIP_NORM


def time_layers(
    layers: Layers = DEFAULT_LAYERS,
    vocab_sizes: Annotated[
        str, typer.Option(help="Vocabulary sizes, separated by commas.")
    ] = "1000,10000,100000,1000000",
    hidden_size: Annotated[int, typer.Option(help="Size of the hidden states.")] = 256,
    num_tokens: Annotated[int, typer.Option(min=1, help="Targets per step.")] = 700,
    optimizer: Optimizer = "adagrad",
    clip_norm: Annotated[
        float, typer.Option(help="Maximum norm of all gradients together.")
    ] = CLIP_NORM,
    time_budget: Annotated[
        float, typer.Option(help="Seconds for all layers of one vocabulary size together.")
    ] = 60.0,
    seed: Seed = 0,
    threads: Threads = 0,
    device: Device = "cpu",
    out: Out = Path("runs/speed"),
) -> None:
    """Time one training step of each layer alone, on random hidden states and Zipf targets."""
    import msgspec

    from softmax_bench.records.trial import BPTT
    from softmax_bench.study.check import class_limit_mistake
    from softmax_bench.study.jobs.job import Limits
    from softmax_bench.study.plan.grid import speed_trials
    from softmax_bench.study.plan.plan import plan_timing
    from softmax_bench.study.study_file import listed, make_study

    options_and_keys = {
        "--layers": ("layers", layers),
        "--vocab-sizes": ("vocab_sizes", vocab_sizes),
        "--hidden-size": ("hidden_size", hidden_size),
        "--num-tokens": ("batch_size", num_tokens),
        "--optimizer": ("optimizer", optimizer),
        "--clip-norm": ("clip_norm", clip_norm),
        "--time-budget": ("time_budget", time_budget),
        "--seed": ("seeds", seed),
        "--threads": ("threads", threads),
        "--device": ("device", device),
    }
    options = {key: option for option, (key, _) in options_and_keys.items()}
    study = make_study(
        {key: listed(key, value) for key, value in options_and_keys.values()} | {"bptt": 1},
        lambda key, value: options[key],
    )
    sizes = [size for size in study.vocab_sizes if size != "all"]
    if len(sizes) < len(study.vocab_sizes):
        raise SoftmaxBenchError("--vocab-sizes: 'all' is for a corpus; give numbers here")
    if too_large := class_limit_mistake(study, word_vectors=False):
        raise SoftmaxBenchError(f"--vocab-sizes: {too_large}")
    groups = [
        # --num-tokens is given as one number; the encoder reads these tokens in streams as usual
        [msgspec.structs.replace(trial, bptt=BPTT) for trial in speed_trials(study, size, "lstm")]
        for size in sizes
    ]
    run_plan(plan_timing(groups, time_budget, Limits()), out, make_console())
