"""``softmax-bench advise``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softmax_bench.cli.options import Device, Layers, Optimizer, Threads
from softmax_bench.cli.output import make_console
from softmax_bench.errors import SoftmaxBenchError


def advise(
    vocab: Annotated[int | None, typer.Option(help="Number V of classes.")] = None,
    hidden: Annotated[int, typer.Option(help="Size H of a hidden state.")] = 256,
    tokens: Annotated[int, typer.Option(help="Targets N in a training step.")] = 700,
    counts: Annotated[
        Path | None,
        typer.Option(
            help="How often each class occurs: an array (.npy), or a text file of numbers. By "
            "default, classes follow Zipf's law."
        ),
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Memory limit for the layer and its training, such as 4GB.")
    ] = None,
    need: Annotated[
        list[str] | None,
        typer.Option(
            help="What the layer must have: normalised, self-normalised, exact, linear, any-order, "
            "traced. Repeatable."
        ),
    ] = None,
    max_penalty: Annotated[
        float,
        typer.Option(
            min=0, help="Largest increase of perplexity over full softmax, as a fraction."
        ),
    ] = 0.05,
    layers: Layers = "all",
    optimizer: Optimizer = "adagrad",
    threads: Threads = 0,
    device: Device = "cpu",
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Time the layers at this size now instead of predicting."),
    ] = False,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Repeat the calibration.")
    ] = False,
    calibrations: Annotated[
        Path | None, typer.Option(help="Folder of calibrations; in the user's cache by default.")
    ] = None,
) -> None:
    """Rank the layers for your sizes by a cost model calibrated on this machine.

    The first time, every layer is timed at a few small sizes, which takes about a minute.
    """
    from softmax_bench.study.jobs.calm import prepare_threads

    prepare_threads()  # before torch is imported
    from rich.progress import Progress

    from softmax_bench.advise import advice, calibration, steps
    from softmax_bench.advise.needs import check_needs
    from softmax_bench.advise.question import ask, read_bytes
    from softmax_bench.advise.show import print_advice
    from softmax_bench.cache import cache_folder
    from softmax_bench.layers import split_specs
    from softmax_bench.study.check import common_mistakes
    from softmax_bench.study.plan.grid import usable_threads

    question = ask(vocab, hidden, tokens, counts)
    check_needs(need or [])
    limits = advice.Limits(
        memory_bytes=None if max_memory is None else read_bytes(max_memory),
        needs=need or [],
        penalty=max_penalty,
    )
    specs = split_specs(layers)
    for mistake in common_mistakes(specs, optimizer, device):
        raise SoftmaxBenchError(mistake.message)
    loads = question.workloads(specs)
    here = calibration.this_setting(
        threads=threads or usable_threads(), device=device, dtype="float32", optimizer=optimizer
    )
    console = make_console()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("timing the layers", total=1.0, visible=False)

        def show_share(share: float) -> None:
            progress.update(task, completed=share, visible=True)

        if measure:
            timed = steps.measured(loads, question, here, seconds=1.0, on_share=show_share)
        else:
            folder = calibrations or cache_folder() / "calibration"
            timed = steps.predicted(loads, here, folder, anew=recalibrate, on_share=show_share)
    ranked = advice.advise(
        [work for work in loads if work.layer in timed.by_layer], timed.by_layer, limits, optimizer
    )
    print_advice(question, ranked, timed, console)
    left_out = [work.layer for work in loads if work.layer not in timed.by_layer]
    if left_out:
        console.print(f"Too slow or too large to time: {', '.join(left_out)}.", markup=False)
    if advice.recommended(ranked) is None:
        raise SoftmaxBenchError("every layer is ruled out; the reasons are above")
