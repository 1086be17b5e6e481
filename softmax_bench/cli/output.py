"""What commands run and print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from softmax_bench.errors import SoftmaxBenchError

if TYPE_CHECKING:
    from rich.console import Console

    from softmax_bench.study.executors.executor import Executor
    from softmax_bench.study.plan.plan import Plan
    from softmax_bench.study.run.outcome import Outcome


def make_console() -> Console:
    """The console that commands print to."""
    from rich.console import Console

    return Console()


def show_report(results: Path, console: Console, out: Path | None = None) -> None:
    """Print the answer, the table and the caveats, write the report, and print its path."""
    from softmax_bench.records.frames import load_results
    from softmax_bench.report import write_report
    from softmax_bench.report.show.terminal import print_summary

    loaded = load_results(results)
    if loaded.train.empty and loaded.speed.empty and loaded.divergences.empty:
        console.print("No layer has a result yet, so there is no report.")
        return
    print_summary(loaded, console)
    page = write_report(results, out, loaded)
    console.print(f"Report: {page.resolve()}", soft_wrap=True, highlight=False)


def run_plan(
    plan: Plan,
    store: Path,
    console: Console,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    show: Callable[[], None] | None = None,
    again: bool = False,
    retry_failed: bool = False,
    tensorboard: bool = False,
) -> None:
    """Run a plan, show its progress, and report at the end.

    Args:
        plan: The jobs to do.
        store: Folder of the results.
        console: Where to print.
        workers: Number of jobs that run at once.
        executor: Runs the jobs, for this store, and is closed at the end; by default, they are
            processes of this machine.
        show: Prints the results instead of the report.
        again: Re-run finished trials too.
        retry_failed: Re-run failed trials too.
        tensorboard: Write learning curves.

    Raises:
        SoftmaxBenchError: The store is not writable, or a trial does not fit in memory.
        typer.Exit: Not every trial has a result; the status is 1.
    """
    from softmax_bench.records.store import make_store, read_store
    from softmax_bench.study.executors.local import LocalExecutor
    from softmax_bench.study.plan.estimate import memory_mistake, memory_warnings
    from softmax_bench.study.run.progress import ProgressDisplay
    from softmax_bench.study.run.session import run
    from softmax_bench.study.run.tensorboard import TensorBoard

    contents = read_store(store)
    steps = plan({} if again else contents.records, {} if retry_failed else contents.failures)
    if too_large := memory_mistake(steps):
        raise SoftmaxBenchError(too_large)
    make_store(store)
    for doubt in memory_warnings(steps, workers):
        console.print(f"Warning: {doubt}.", style="yellow", highlight=False, soft_wrap=True)
    boards = [TensorBoard(store / "tensorboard")] if tensorboard else []
    with (
        executor or LocalExecutor(store, workers) as running,
        ProgressDisplay(console, workers) as display,
    ):
        outcome = run(
            plan, store, running, [display, *boards], again=again, retry_failed=retry_failed
        )
    if outcome.done and show is not None:
        show()
    elif outcome.done:
        show_report(store, console)
    if not outcome.complete:
        _show_failures(outcome, store, console)
        raise typer.Exit(1)


def _show_failures(outcome: Outcome, store: Path, console: Console) -> None:
    from softmax_bench.records.trial import describe_trial

    lines = [f"{len(outcome.failures)} of the trials failed:"]
    lines += [
        f"  {describe_trial(failure.trial)}: {failure.reason}"
        for failure in outcome.failures.values()
    ]
    if outcome.no_usable_rate:
        lines.append(
            f"{outcome.no_usable_rate} more were not run because every learning rate failed"
        )
    if outcome.waiting:
        lines.append(
            f"{outcome.waiting} more depend on killed trials: repeat the command to run them"
        )
    lines.append(f"Their output is in {store / 'jobs'}; --retry-failed runs them again")
    for line in lines:
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
