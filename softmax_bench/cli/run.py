"""``softmax-bench run``."""

from __future__ import annotations

from typing import Annotated

import typer

from softmax_bench.cli.output import make_console, run_plan
from softmax_bench.cli.study_options import (
    CorpusOption,
    DataDir,
    LayersOption,
    RatesOption,
    SetOption,
    StudyName,
    StudyOut,
    TokensOption,
    VocabSizesOption,
    read_study,
    read_texts,
    store_of,
)


def run(
    study: StudyName = "quick",
    corpus: CorpusOption = None,
    vocab_sizes: VocabSizesOption = None,
    layers: LayersOption = None,
    learning_rates: RatesOption = None,
    max_tokens: TokensOption = None,
    settings: SetOption = None,
    data_dir: DataDir = None,
    out: StudyOut = None,
    again: Annotated[bool, typer.Option("--again", help="Run also what is done already.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run also what has failed before.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write learning curves for TensorBoard.")
    ] = False,
) -> None:
    """Train the shared language model with each layer, time the layers, write the report.

    Every trial is a process of its own; one that fails is recorded, and the study goes on. What is
    done is not run again: a study that was stopped goes on when the same command is given.
    """
    chosen = read_study(
        study,
        corpus=corpus,
        vocab_sizes=vocab_sizes,
        layers=layers,
        learning_rates=learning_rates,
        max_tokens=max_tokens,
        settings=settings,
    )
    from softmax_bench.study.grid import plan_study

    console, store = make_console(), store_of(study, out)
    texts = read_texts(chosen, data_dir, console)
    run_plan(
        plan_study(chosen, texts),
        store,
        console,
        workers=chosen.workers,
        again=again,
        retry_failed=retry_failed,
        tensorboard=tensorboard,
    )
