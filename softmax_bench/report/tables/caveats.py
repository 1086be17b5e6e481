"""Caveats that a reader of the results must know."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from softmax_bench.records.frames import Results
from softmax_bench.records.result import FEWEST_TOKENS, MOST_UNKNOWN
from softmax_bench.report.tables.disturbed import disturbances, disturbed_sizes, rough
from softmax_bench.report.tables.selection import KEY, best_trials, latest_speed, one_study
from softmax_bench.report.tables.tuning import tuning_table

_MOST_LISTED = 7
MACHINE = ["processor", "cores", "accelerator"]
"""Fields that identify a machine; threads and versions may change on one."""


def warnings(results: Results) -> list[str]:
    """Reasons for doubt, one sentence each."""
    _, _, caveats = one_study(results)
    caveats += _too_small(results)
    if not results.train.empty:
        if results.train["learning_rate"].nunique() == 1:
            caveats.append(
                "all layers were trained with one learning rate, which suits some better than "
                "others; with several (--learning-rates), each uses its own"
            )
        seeds = best_trials(results).groupby(KEY)["seed"].nunique()
        if (seeds == 1).any():
            where = "" if (seeds == 1).all() else f" for {(seeds == 1).sum()} of {len(seeds)} rows"
            caveats.append(
                f"one seed was run{where}, so differences of a few per cent of perplexity may be "
                "chance; --set seeds=0,1,2 shows how much"
            )
        elif seeds.min() == 2:
            caveats.append("two seeds were run, which are too few for intervals")
    caveats += [
        f"the best learning rate of {row.layer} at V = {row.vocab_size:,} ({row.learning_rate:g}) "
        "is at an end of the range that was tried, so a better one may lie beyond"
        for row in tuning_table(results).itertuples()
        if not row.bracketed
    ]
    caveats += _imprecise(results)
    caveats += _disturbances(results)
    caveats += [f"{row.title} failed: {row.reason}" for row in results.failures.itertuples()]
    caveats += _gaps(results)
    machines = results.environments[MACHINE].drop_duplicates()
    if len(machines) > 1:
        caveats.append(f"the records come from {len(machines)} different machines")
    commits = results.environments["git_commit"].dropna().unique()
    if len(commits) > 1:
        caveats.append(f"the records come from {len(commits)} versions of the code")
    return caveats


def _too_small(results: Results) -> list[str]:
    """Why perplexities say little for any layer, one sentence per reason, with the sizes."""
    best = best_trials(results)
    sizes_by_reason: dict[str, list[int]] = {}
    for size, trials in () if best.empty else best.groupby("vocab_size"):
        for reason in _too_small_at(int(size), trials):
            sizes_by_reason.setdefault(reason, []).append(int(size))
    return [
        f"at V = {', '.join(f'{size:,}' for size in sizes)} {reason}"
        for reason, sizes in sizes_by_reason.items()
    ]


def _too_small_at(size: int, trials: pd.DataFrame) -> Iterator[str]:
    for split, text in (("valid", "validation"), ("test", "test")):
        tokens = int(trials[f"{split}_tokens"].iloc[0])
        unknown = trials[f"{split}_unknown_tokens"].iloc[0] / tokens
        if tokens < FEWEST_TOKENS:
            yield f"the {text} text has only {tokens:,} tokens, so its perplexity is mostly chance"
        elif unknown > MOST_UNKNOWN:
            yield (
                f"{unknown:.0%} of the {text} text is <unk>, so its perplexity says little about "
                "words"
            )
    guessing = sorted(set(trials.loc[trials["test_perplexity"] > size, "layer"]))
    if guessing:
        yield (
            f"predictions of {', '.join(guessing)} are worse than guessing: training was too short "
            "or on a different kind of text"
        )
    tokens = trials["train_tokens"]
    if tokens.min() < size:
        yield f"there were fewer training tokens ({tokens.min():,}) than classes"
    if tokens.nunique() > 1 and not trials["patience"].any():
        yield (
            f"layers were trained on {tokens.min():,} to {tokens.max():,} tokens, and more "
            "training alone lowers perplexity"
        )


def _imprecise(results: Results) -> list[str]:
    """Step times for which the budget was too small, one sentence per vocabulary size."""
    speed = latest_speed(results)
    if speed.empty:
        return []
    steps = speed[speed["phase"] == "step"]
    half = rough(steps)
    caveats = []
    for size, rows in steps.loc[half.index].groupby("vocab_size"):
        if len(rows) > _MOST_LISTED:
            imprecise = f"those of {len(rows)} layers to {half[rows.index].max():.0%} or better"
        else:
            imprecise = ", ".join(
                f"{row.layer} to {half[place]:.0%} ({row.repetitions} repetitions)"
                for place, row in zip(rows.index, rows.itertuples(), strict=True)
            )
        caveats.append(
            f"step times at V = {size:,} are imprecise, {imprecise}; a larger --time-budget makes "
            "them more precise"
        )
    return caveats


def _gaps(results: Results) -> list[str]:
    """Layers without a result at vocabulary sizes where others have one."""
    caveats = []
    for what, frame in (("trained", best_trials(results)), ("timed", latest_speed(results))):
        if frame.empty:
            continue
        sizes = set(frame["vocab_size"])
        for layer, rows in frame.groupby("layer"):
            missing = sorted(sizes - set(rows["vocab_size"]))
            if missing:
                listed = ", ".join(f"{size:,}" for size in missing)
                caveats.append(f"{layer} was not {what} at V = {listed}, where others were")
    return caveats


def _disturbances(results: Results) -> list[str]:
    """How the machine was disturbed, at most once for timing and once for training."""
    caveats = []
    for what, frame in (
        ("timing", latest_speed(results)),
        ("the seconds of training", best_trials(results)),
    ):
        sizes = disturbed_sizes(frame)
        if sizes:
            rows = frame[frame["vocab_size"].isin(sizes)]
            layers = rows.groupby("layer")
            disturbed = [str(layer) for layer, trials in layers if disturbances(trials)]
            of = "" if len(disturbed) == layers.ngroups else f" of {', '.join(disturbed)}"
            where = ", ".join(f"{size:,}" for size in sizes)
            caveats.append(
                f"{what}{of} at V = {where} cannot be relied on: {', '.join(disturbances(rows))}"
            )
    return caveats
