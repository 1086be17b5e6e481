"""``softmax-bench fidelity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softmax_bench.cli.options import Device, Layers, Optimizer, Out, Seed, Threads, numbers
from softmax_bench.cli.output import make_console, run_plan


def fidelity(
    corpus: Annotated[
        str,
        typer.Argument(help="'synthetic', a text file, or a folder with train, valid and test."),
    ] = "synthetic",
    layers: Layers = "all",
    vocab_size: Annotated[int, typer.Option(min=1, help="Vocabulary size.")] = 4000,
    samples: Annotated[
        str, typer.Option(help="Numbers of samples at which gradients are measured.")
    ] = "4,16,64,256,1024",
    draws: Annotated[int, typer.Option(help="Number of times each gradient is drawn.")] = 64,
    max_tokens: Annotated[
        int, typer.Option(help="Training tokens for the full model and for each layer.")
    ] = 100_000,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of the full model.")] = 0.1,
    learning_rates: Annotated[
        str, typer.Option(help="Learning rates of the layers; each layer gets its best one.")
    ] = "0.03,0.1,0.3,1",
    encoder: Annotated[
        str, typer.Option(help="rnn, gru, lstm, nplm, lbl or transformer.")
    ] = "lstm",
    hidden_size: Annotated[int, typer.Option(help="Size of hidden states and word vectors.")] = (
        128
    ),
    optimizer: Optimizer = "adagrad",
    batch_size: Annotated[int, typer.Option(help="Parallel streams of text.")] = 20,
    bptt: Annotated[int, typer.Option(help="Time steps of backpropagation.")] = 20,
    seed: Seed = 0,
    threads: Threads = 0,
    device: Device = "cpu",
    out: Out = Path("runs/fidelity"),
) -> None:
    """Compare each layer with full softmax: its gradient, its samples and what it learns."""
    from softmax_bench.layers import split_specs
    from softmax_bench.records.frames import load_results
    from softmax_bench.records.store import check_store
    from softmax_bench.records.trial import FidelityTrial
    from softmax_bench.report import write_report
    from softmax_bench.report.tables.fidelity import print_fidelity
    from softmax_bench.study.jobs.job import Limits, Text
    from softmax_bench.study.plan.grid import train_trial
    from softmax_bench.study.plan.plan import plan_fidelity
    from softmax_bench.study.study_file import make_study
    from softmax_bench.study.texts import summarise_text
    from softmax_bench.study.trials.fidelity import check_fidelity

    one_of = {
        "vocab_sizes": "vocab_size",
        "encoders": "encoder",
        "learning_rates": "learning_rate",
        "seeds": "seed",
        "corpus_seed": "seed",
    }
    study = make_study(
        {
            "corpora": [corpus],
            "vocab_sizes": [vocab_size],
            "layers": split_specs(layers),
            "learning_rates": [learning_rate],
            "encoders": [encoder],
            "hidden_size": hidden_size,
            "optimizer": optimizer,
            "batch_size": batch_size,
            "bptt": bptt,
            "max_tokens": [max_tokens],
            "seeds": [seed],
            "corpus_seed": seed,
            "threads": threads,
            "device": device,
        },
        lambda key, value: "--" + one_of.get(key, key).replace("_", "-"),
    )
    check_store(out)
    text = summarise_text(Text(spec=corpus, vocab_size=vocab_size, seed=seed))
    model = train_trial(study, text, encoder, "full", learning_rate, max_tokens, seed)
    trials = [
        FidelityTrial(
            layer=layer,
            model=model,
            sample_counts=tuple(int(k) for k in numbers(samples, "--samples")),
            num_states=batch_size * bptt,
            num_draws=draws,
            learning_rates=tuple(numbers(learning_rates, "--learning-rates")),
        )
        for layer in study.layers
    ]
    check_fidelity(trials)
    console = make_console()

    def show() -> None:
        results = load_results(out)
        print_fidelity(results, console)
        page = write_report(out, results=results)
        console.print(f"Report: {page.resolve()}", soft_wrap=True, highlight=False)

    run_plan(plan_fidelity(trials, text.source, Limits()), out, console, show=show)
