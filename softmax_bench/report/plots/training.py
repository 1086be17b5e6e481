"""Training: its cost, its course, and its sensitivity to the learning rate."""

from __future__ import annotations

import pandas as pd

from softmax_bench.records.frames import Results
from softmax_bench.report.plots.chart import Axis, Chart, Lines, Panel, Series, layer_line
from softmax_bench.report.plots.vocabulary import size_title
from softmax_bench.report.style import MOST_NAMED, family
from softmax_bench.report.tables.price import price_table
from softmax_bench.report.tables.selection import best_trials, one_study
from softmax_bench.report.tables.summary import LEAST_SEEDS, references, summary_table
from softmax_bench.report.tables.tuning import most_rates

FAR = 2
"""Layers with more than so many times the lowest perplexity would hide how the others differ."""


def price(results: Results) -> Chart | None:
    """Test perplexity against training seconds, with the Pareto front; one panel per V."""
    table = summary_table(results)
    if "train_seconds" not in table or table["train_seconds"].isna().all():
        return None
    trained = table.dropna(subset="train_seconds")
    lowest = trained.groupby("vocab_size")["test_perplexity"].transform("min")
    is_far = trained["test_perplexity"] > FAR * lowest
    panels = [
        _price_panel(int(size), rows) for size, rows in trained[~is_far].groupby("vocab_size")
    ]
    tokens = trained["train_tokens"].iloc[0]
    caption = (
        "Lower is better, further left is cheaper; the dotted staircase is the front of those that "
        "no other layer beats in both, and lines join the options of one layer that are its own "
        f"front. Bars, where there are {LEAST_SEEDS} seeds or more, are 95 % intervals."
    )
    if is_far.any():
        listed = ", ".join(trained.loc[is_far, "layer"].unique())
        caption += f" Not shown, at more than {FAR} times the lowest perplexity: {listed}."
    return Lines(
        name="price",
        title=f"Quality and training time after {tokens:,.0f} tokens",
        caption=caption,
        x=Axis("training time [s]", log=True),
        y=Axis("test perplexity", log=True),
        panels=panels,
    )


def _price_panel(size: int, rows: pd.DataFrame) -> Panel:
    """A point for each layer, the front of each layer's options, and that of all layers."""
    rows = rows.sort_values("train_seconds")
    families = rows["layer"].map(family)
    # Among many, the options of a layer have one label.
    together = families.duplicated(keep=False) & (len(rows) > MOST_NAMED)
    series = [
        Series(
            name=str(row.layer),
            layer=str(row.layer),
            x=[row.train_seconds],
            y=[row.test_perplexity],
            low=[row.test_low],
            high=[row.test_high],
            curve=int(one_label),
        )
        for row, one_label in zip(rows.itertuples(), together, strict=True)
    ]
    for name, options in rows.groupby(families):
        best = _front(options, "test_perplexity")
        one_label = together[options.index[0]]
        if len(best) > 1 or one_label:
            series.append(
                Series(
                    name=str(name) if one_label else f"front of {name}",
                    layer=str(best["layer"].iloc[0]),
                    x=best["train_seconds"].tolist(),
                    y=best["test_perplexity"].tolist(),
                    markers=bool(one_label),
                    curve=int(not one_label),
                )
            )
    series.append(_staircase(rows, "test_perplexity"))
    return Panel(size_title(size), series, size)


def _front(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows, by ascending training time, that no faster row beats in a column."""
    return rows[rows[column] <= rows[column].cummin()]


def _staircase(rows: pd.DataFrame, column: str) -> Series:
    """The lowest value that can be had within any training time."""
    front = _front(rows, column)
    return Series(
        name="the front",
        x=[*front["train_seconds"].tolist(), rows["train_seconds"].max()],
        y=[*front[column].tolist(), front[column].iloc[-1]],
        step=True,
        markers=False,
    )


def bits_per_byte_for_time(results: Results) -> Chart | None:
    """Bits per byte against training seconds: one line per layer, through its vocabularies."""
    table = summary_table(results)
    if "bits_per_byte" not in table or "train_seconds" not in table:
        return None
    rows = table.dropna(subset=["bits_per_byte", "train_seconds"]).sort_values("train_seconds")
    sizes = sorted(rows["vocab_size"].unique())
    if len(sizes) < 2:
        return None
    series = []
    for layer, at in rows.sort_values("vocab_size").groupby("layer"):
        series.append(layer_line(layer, at["train_seconds"], at["bits_per_byte"]))
    return Lines(
        name="bits-per-byte-for-time",
        title="Which vocabulary, with which layer, for a given training time?",
        caption="Each line joins the vocabularies of one layer in ascending order: V = "
        f"{', '.join(f'{size:,}' for size in sizes)}. Lower is better, further left is cheaper; "
        "the dotted staircase is the front of those that nothing else beats in both. Every "
        "vocabulary predicts the same bytes.",
        x=Axis("training time [s]", log=True),
        y=Axis("bits per byte"),
        panels=[Panel("", [*series, _staircase(rows, "bits_per_byte")])],
    )


def learning_curves(results: Results) -> Chart | None:
    """Validation perplexity against training seconds, and the target; one panel per V."""
    best = best_trials(results)
    if best.empty:
        return None
    beside = references(results)
    prices = price_table(results)
    panels = []
    for size, at_size in best.groupby("vocab_size"):
        series = []
        for layer, trials in at_size.groupby("layer"):
            for number, identity in enumerate(trials["id"]):
                curve = results.curves[results.curves["id"] == identity]
                x, y = curve["seconds"], curve["valid_perplexity"]
                series.append(layer_line(layer, x, y, curve=number))
        ends = [at for one in series for at in (min(one.x), max(one.x))]
        span = [min(ends), max(ends)]
        level = [(f"target {prices.loc[prices['vocab_size'] == size, 'target'].iloc[0]:.4g}",
                  prices.loc[prices["vocab_size"] == size, "target"].iloc[0])]  # fmt: skip
        level += [
            (row.reference, row.valid_perplexity)
            for row in beside[beside["vocab_size"] == size].itertuples()
        ]
        series += [
            Series(name=name, x=span, y=[value, value], markers=False) for name, value in level
        ]
        panels.append(Panel(size_title(int(size)), series, int(size)))
    return Lines(
        name="learning-curves",
        title="Perplexity against training time",
        caption="Training time alone; evaluation is not counted. Every layer sees the same "
        "tokens, so a line that ends further left was faster. The target is the best perplexity "
        "that every layer reaches. Curves are of a part of the validation text, references of all.",
        x=Axis("training time [s]", log=True),
        y=Axis("validation perplexity", log=True),
        panels=panels,
    )


def learning_rates(results: Results) -> Chart | None:
    """Validation perplexity of every learning rate, at the budget with the most rates."""
    train, _, _ = one_study(results)
    if train.empty:
        return None
    panels = []
    for size, at_size in train.groupby("vocab_size"):
        tried = most_rates(at_size)
        if tried["learning_rate"].nunique() < 2:
            continue
        tokens = tried["max_tokens"].iloc[0]
        series = []
        for layer, rows in tried.groupby("layer"):
            # Take the mean over seeds, then the best of the layer's own options.
            tried_so = rows.groupby(["learning_rate", "tuned"])["valid_perplexity"].mean()
            by_rate = tried_so.groupby("learning_rate").min()
            series.append(layer_line(layer, by_rate.index, by_rate))
        panels.append(Panel(f"{size_title(int(size))}, {tokens:,} tokens", series, int(size)))
    return (
        Lines(
            name="learning-rates",
            title="Sensitivity to the learning rate",
            caption="Every rate that was tried, with the budget of tuning. The curves show how "
            "sharp each optimum is, and whether it lies at an end of the grid.",
            x=Axis("learning rate", log=True),
            y=Axis("validation perplexity", log=True),
            panels=panels,
        )
        if panels
        else None
    )
