"""``softmax-bench run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softmax_bench.cli.executors import ExecutorName, make_executor
from softmax_bench.cli.output import make_console, run_plan
from softmax_bench.cli.study_options import StudyRequest, read_texts, study_command
from softmax_bench.errors import SoftmaxBenchError


@study_command
def run(
    request: StudyRequest,
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
    study = request.read()
    from softmax_bench.records.store import check_store
    from softmax_bench.study.plan.grid import plan_given, plan_study, workers_of
    from softmax_bench.study.texts import summarise_states

    console = make_console()
    given = hidden is not None or targets is not None
    store = request.out or Path("runs/given") if given else request.store
    check_store(store)
    where = make_executor(executor, store, workers_of(study), address)
    if given:
        if request.corpus is not None or request.data_dir is not None:
            raise SoftmaxBenchError(
                "--hidden and --targets take the place of --corpus and --data-dir"
            )
        sizes = None if request.vocab_sizes is None else study.vocab_sizes
        study, states = summarise_states(study, hidden, targets, sizes)
        console.print(
            f"{states.name}: V={states.vocab_size:,}, H={study.hidden_size}; examples: train "
            f"{states.train_tokens:,}, valid {states.valid_tokens:,}, test {states.test_tokens:,}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        plan = plan_given(study, states)
    else:
        plan = plan_study(study, read_texts(study, request.data_dir, console))
    run_plan(
        plan,
        store,
        console,
        workers=workers_of(study),
        executor=where,
        again=again,
        retry_failed=retry_failed,
        tensorboard=tensorboard,
    )
