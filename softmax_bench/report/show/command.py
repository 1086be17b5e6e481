"""The commands that would reproduce stored results."""

from __future__ import annotations

import shlex

import numpy as np
import pandas as pd

from softmax_bench.records.frames import Results
from softmax_bench.records.trial import GIVEN, tuned_spec
from softmax_bench.report.tables.selection import KEY, best_trials, latest_speed, one_study
from softmax_bench.study.study import CONDITIONS, Study

_TIMING = ("hidden_size", "num_tokens", "optimizer", "threads", "device")


def commands(results: Results) -> list[str]:
    """One command for the trained models, or for the timings if there are none.

    If learning rates were searched, each layer has its own, so there is a command for each layer
    and vocabulary size that repeats the rate found. A run also times what it trains; its time
    budget is not part of a trial, and is the default here.
    """
    train, _, _ = one_study(results)
    if not train.empty:
        if train.groupby("layer")["learning_rate"].agg(frozenset).nunique() == 1:
            return [_run(results, train)]
        return [_run(results, best) for _, best in best_trials(results).groupby(KEY)]
    speed = latest_speed(results)
    if speed.empty:
        return []
    first = speed.iloc[0]
    words = ["softmax-bench", "time", *_what(speed)]
    words += [word for name in _TIMING for word in _option(name, first[name])]
    return [shlex.join(words)]


def _run(results: Results, train: pd.DataFrame) -> str:
    """The study "quick", with everything set that differs from it."""
    first = best_trials(results).iloc[0]
    words = ["softmax-bench", "run"]
    given = first["encoder"] == GIVEN
    if given:
        hidden, targets = str(first["corpus"]).split(",", 1)
        words += ["--hidden", hidden, "--targets", targets]
    else:
        words += ["--corpus", str(first["corpus"])]
    words += _what(train)
    words += ["--learning-rates", _listed(train["learning_rate"])]
    budgets = sorted(train["max_tokens"].unique())
    words += ["--max-tokens", str(budgets[-1])]
    settings = {"seeds": _listed(train["seed"]), "threads": first["threads"]}
    if given:
        first = first.drop(["hidden_size", "embedding_size"])
    else:
        settings = {"encoders": first["encoder"], **settings}
    if len(budgets) > 1:
        settings["tune_tokens"] = budgets[0]
    if not given and first["embedding_size"] == first["hidden_size"]:
        first = first.drop("embedding_size")
    usual_start = Study(optimizer=str(first["optimizer"])).accumulator_start
    if first.get("initial_accumulator_value") == usual_start:
        first = first.drop("initial_accumulator_value")
    usual = Study()
    settings |= {
        name: first[name]
        for name in (*CONDITIONS, "embedding_size", "initial_accumulator_value")
        if name in first and first[name] != getattr(usual, name)
    }
    for name, value in settings.items():
        words += ["--set", f"{name}={_text(value)}"]
    return shlex.join(words)


def _what(frame: pd.DataFrame) -> list[str]:
    tuned = frame["tuned"] if "tuned" in frame else [""] * len(frame)
    specs = [tuned_spec(*pair) for pair in zip(frame["layer"], tuned, strict=True)]
    layers = ",".join(dict.fromkeys(specs))
    return ["--layers", layers, "--vocab-sizes", _listed(frame["vocab_size"])]


def _listed(values: pd.Series[float]) -> str:
    return ",".join(f"{value:.15g}" for value in sorted(values.unique()))


def _option(name: str, value: object) -> list[str]:
    if value is None or pd.isna(value):
        return []
    return [f"--{name.replace('_', '-')}", _text(value)]


def _text(value: object) -> str:
    """The value in TOML's notation, with text unquoted."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)
