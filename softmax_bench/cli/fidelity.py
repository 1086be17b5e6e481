"""``softmax-bench fidelity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softmax_bench.cli.options import Layers, Out, Threads, numbers, usable_cores
from softmax_bench.cli.output import make_console


def fidelity(
    corpus: Annotated[
        str,
        typer.Argument(help="'synthetic', a text file, or a folder with train, valid and test."),
    ] = "synthetic",
    layers: Layers = "all",
    vocab_size: Annotated[int, typer.Option(help="Vocabulary size.")] = 4000,
    samples: Annotated[
        str, typer.Option(help="Numbers of samples at which gradients are measured.")
    ] = "4,16,64,256,1024",
    draws: Annotated[int, typer.Option(help="Of each gradient.")] = 64,
    max_tokens: Annotated[
        int, typer.Option(help="Training tokens of the full model, and of each layer.")
    ] = 100_000,
    learning_rate: Annotated[float, typer.Option(help="Of the full model.")] = 0.1,
    learning_rates: Annotated[
        str, typer.Option(help="Of the layers; each gets the one it does best with.")
    ] = "0.03,0.1,0.3",
    encoder: Annotated[str, typer.Option(help="rnn, gru, lstm, nplm, lbl, transformer.")] = "lstm",
    hidden_size: Annotated[int, typer.Option(help="Size of a hidden state and a word vector.")] = (
        128
    ),
    optimizer: Annotated[str, typer.Option(help="sgd, adagrad or adam.")] = "adagrad",
    batch_size: Annotated[int, typer.Option(help="Streams side by side.")] = 20,
    bptt: Annotated[int, typer.Option(help="Time steps that gradients flow back.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    threads: Threads = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Out = Path("runs/fidelity"),
) -> None:
    """Set each layer against full softmax: its gradient, its samples, what it learns."""
    from rich.progress import Progress

    from softmax_bench.report.fidelity import print_fidelity
    from softmax_bench.study import plan
    from softmax_bench.study.fidelity import measure_fidelity
    from softmax_bench.study.frames import load_results
    from softmax_bench.study.store import record_path, write_record
    from softmax_bench.study.trial import FidelityTrial, trial_id

    choices = plan.Choices(
        corpus=corpus,
        vocab_sizes=[vocab_size],
        layers=plan.split_specs(layers),
        learning_rates=[learning_rate],
        encoder=encoder,
        embedding_size=hidden_size,
        hidden_size=hidden_size,
        num_layers=1,
        dropout=0.0,
        tied=False,
        optimizer=optimizer,
        clip_norm=5.0,
        batch_size=batch_size,
        bptt=bptt,
        max_tokens=max_tokens,
        tune_tokens=max_tokens,
        seed=seed,
        num_seeds=1,
        threads=threads or usable_cores(),
        device=device,
    )
    plan.check(choices)
    (text,) = plan.load_corpora(choices)
    model = plan.train_trial(choices, text, "full", learning_rate, max_tokens, seed)
    trials = [
        FidelityTrial(
            layer=layer,
            model=model,
            sample_counts=tuple(int(k) for k in numbers(samples, "--samples")),
            num_states=batch_size * bptt,
            num_draws=draws,
            learning_rates=tuple(numbers(learning_rates, "--learning-rates")),
        )
        for layer in choices.layers
    ]
    console = make_console()
    missing = [trial for trial in trials if not record_path(out, trial_id(trial)).exists()]
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("model", total=1.0)

        def show(what: str, share: float) -> None:
            progress.update(task, description=what, completed=share)

        for record in measure_fidelity(missing, text, on_progress=show) if missing else ():
            write_record(out, record)
            found = record.result
            console.print(
                f"{record.trial.layer}: {found.divergence.value:.3f} nats from the full model",
                markup=False,
                highlight=False,
            )
    print_fidelity(load_results(out), console)
