"""``softmax-bench run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softmax_bench.cli.executors import ExecutorName, make_executor
from softmax_bench.cli.output import make_console, run_plan
from softmax_bench.cli.study_options import StudyRequest, read_texts, study_command


@study_command
def run(
    asked: StudyRequest,
    hidden: Annotated[
        Path | None,
        typer.Option(
            help="Hidden states of your own model, an array (.npy) of shape (M, H), instead of a "
            "corpus."
        ),
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(help="Their target classes, an array (.npy) of shape (M,)."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Re-run finished trials too.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Re-run failed trials too.")
    ] = False,
    executor: Annotated[
        ExecutorName,
        typer.Option(help="Where trials run: as processes of this machine, or on a cluster."),
    ] = ExecutorName.LOCAL,
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of a Ray cluster, or 'auto'; by default Ray runs on this machine only. "
            "For slurm, 'local' rehearses on this machine."
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write learning curves for TensorBoard.")
    ] = False,
) -> None:
    """Train the shared language model with each layer, time the layers and write a report.

    Each trial runs in its own process; if one fails, that is recorded and the study continues.
    Finished trials are skipped, and the same command resumes an interrupted study.
    """
    chosen = asked.read()
    from softmax_bench.study.plan.grid import plan_given, plan_study, workers_of
    from softmax_bench.study.texts import know_given

    console = make_console()
    if hidden is not None or targets is not None:
        sizes = None if asked.vocab_sizes is None else chosen.vocab_sizes
        chosen, given = know_given(chosen, hidden, targets, sizes)
        console.print(
            f"{given.name}: V={given.vocab_size:,}, H={chosen.hidden_size}; examples: train "
            f"{given.train_tokens:,}, valid {given.valid_tokens:,}, test {given.test_tokens:,}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        plan, store = plan_given(chosen, given), asked.out or Path("runs/given")
    else:
        plan = plan_study(chosen, read_texts(chosen, asked.data_dir, console))
        store = asked.store
    run_plan(
        plan,
        store,
        console,
        workers=workers_of(chosen),
        executor=make_executor(executor, store, workers_of(chosen), address),
        again=again,
        retry_failed=retry_failed,
        tensorboard=tensorboard,
    )
