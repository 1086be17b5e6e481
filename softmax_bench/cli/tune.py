"""``softmax-bench tune``."""

from __future__ import annotations

from typing import Annotated

import typer

from softmax_bench.cli.output import make_console, run_plan
from softmax_bench.cli.study_options import StudyRequest, read_texts, study_command


@study_command
def tune(
    request: StudyRequest,
    trials: Annotated[int, typer.Option(min=1, help="Number of trials for each layer.")] = 12,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Training tokens of each trial; the study's budget by default."),
    ] = None,
) -> None:
    """Find each layer's learning rate and options with Optuna, with an equal budget for all.

    If several learning rates are given, their ends are the range to search; if one is given, a
    factor of ten around it. The trials are kept: 'run' with '--set tuning_trials=N' continues with
    the best of them.
    """
    changes = [f"tuning_trials={trials}"]
    if tokens is not None:
        changes.append(f"tune_tokens={tokens}")
    study = request.read(changes)
    from softmax_bench.records.frames import load_results
    from softmax_bench.records.store import check_store
    from softmax_bench.report.tables.tuning import print_tuning, tuning_table
    from softmax_bench.study.plan.grid import plan_tuning, workers_of

    console, store = make_console(), request.store
    check_store(store)
    run_plan(
        plan_tuning(study, read_texts(study, request.data_dir, console)),
        store,
        console,
        workers=workers_of(study),
        show=lambda: print_tuning(tuning_table(load_results(store)), console),
    )
