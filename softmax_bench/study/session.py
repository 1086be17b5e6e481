"""Running many trials one after another: what is done is skipped, what is finished is stored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from softmax_bench.corpora import Corpus
from softmax_bench.lm import DivergedError
from softmax_bench.study import plan
from softmax_bench.study.plan import Choices
from softmax_bench.study.record import NgramRecord, TrainRecord
from softmax_bench.study.run import ngram_trial, speed_trials, train_trial
from softmax_bench.study.store import read_record, record_path, write_record
from softmax_bench.study.trial import SpeedTrial, TrainTrial, trial_id


class _Rate(ProgressColumn):
    """Tokens a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} tokens/s")


def run(choices: Choices, out: Path, *, time_budget: float, console: Console) -> int:
    """Train and time everything that ``choices`` asks for, into the store ``out``.

    Returns:
        How many trials diverged. They leave no record.

    Raises:
        SoftmaxBenchError: A choice is not possible; nothing has been run or written then.
    """
    plan.check(choices)
    corpora = plan.load_corpora(choices)
    for corpus in corpora:
        _describe(corpus, console)
        _count_once(corpus, out, console)
    failed = 0
    for corpus in corpora:
        for layer in choices.layers:
            failed += not _train_best(choices, corpus, layer, out, console)
    groups = [plan.speed_trials(choices, corpus.vocab_size) for corpus in corpora]
    time_groups(groups, out, time_budget=time_budget, console=console)
    return failed


def _describe(corpus: Corpus, console: Console) -> None:
    unknown = corpus.unknown_tokens("test") / len(corpus.test)
    console.print(
        f"{corpus.name}: V={corpus.vocab_size:,}; predicted tokens: train {len(corpus.train):,}, "
        f"valid {len(corpus.valid):,}, test {len(corpus.test):,} ({unknown:.1%} <unk>)",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _count_once(corpus: Corpus, out: Path, console: Console) -> None:
    """The reference that needs no training: an n-gram model of the same text."""
    trial = plan.ngram_trial(corpus)
    stored = record_path(out, trial_id(trial))
    if not stored.exists():
        write_record(out, ngram_trial(trial, corpus))
    record = read_record(stored)
    assert isinstance(record, NgramRecord)
    console.print(
        f"{trial.order}-gram Kneser-Ney model V={trial.vocab_size:,}: "
        f"test perplexity {record.result.test.perplexity:.2f}",
        highlight=False,
    )


def _train_best(choices: Choices, corpus: Corpus, layer: str, out: Path, console: Console) -> bool:
    """Train with the learning rate that does best on a short budget; whether that went well."""
    rates = choices.learning_rates
    best = rates[0]
    if len(rates) > 1:
        tried: dict[float, float] = {}
        for rate in rates:
            trial = plan.train_trial(
                choices, corpus, layer, rate, choices.tune_tokens, choices.seed
            )
            record = _train_once(trial, corpus, out, console)
            if record is not None:
                tried[rate] = record.result.valid.perplexity
        if not tried:
            return False
        best = min(tried, key=lambda rate: tried[rate])
    seeds = range(choices.seed, choices.seed + choices.num_seeds)
    trials = [
        plan.train_trial(choices, corpus, layer, best, choices.max_tokens, seed) for seed in seeds
    ]
    records = [_train_once(trial, corpus, out, console) for trial in trials]
    return None not in records


def _train_once(
    trial: TrainTrial, corpus: Corpus, out: Path, console: Console
) -> TrainRecord | None:
    """The trial's record, stored before or made now; None where training diverged."""
    stored = record_path(out, trial_id(trial))
    title = f"{trial.layer} V={trial.vocab_size:,} lr={trial.learning_rate:g}"
    title += f" seed={trial.seed}" if trial.seed else ""
    if stored.exists():
        record = read_record(stored)
        assert isinstance(record, TrainRecord)
        console.print(f"{title}: done before", markup=False, highlight=False)
        return record
    with _progress(console) as progress:
        task = progress.add_task(title, total=trial.max_tokens)
        try:
            record = train_trial(
                trial, corpus, on_step=lambda tokens: progress.advance(task, tokens)
            )
        except DivergedError as error:
            console.print(f"{title}: {error}", markup=False, style="red")
            return None
    write_record(out, record)
    console.print(
        f"{title}: test perplexity {record.result.test.perplexity:.2f}, "
        f"trained in {record.result.train_seconds:.1f} s",
        markup=False,
        highlight=False,
    )
    return record


def time_groups(
    groups: Sequence[Sequence[SpeedTrial]], out: Path, *, time_budget: float, console: Console
) -> None:
    """Time each group of layers against each other, into the store ``out``.

    A group is timed anew unless all of it is stored: a layer timed alone would not have taken
    turns with the others.
    """
    for trials in groups:
        if all(record_path(out, trial_id(trial)).exists() for trial in trials):
            console.print(f"timing V={trials[0].vocab_size:,}: done before", highlight=False)
            continue
        with _progress(console) as progress:
            task = progress.add_task(f"timing layers at V={trials[0].vocab_size:,}", total=1.0)
            records = speed_trials(
                trials,
                budget_seconds=time_budget,
                on_round=partial(_show_share, progress, task),
            )
        for record in records:
            write_record(out, record)


def _show_share(progress: Progress, task: TaskID, share: float) -> None:
    progress.update(task, completed=share)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
