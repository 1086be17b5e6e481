"""How well the layers predict, and at what price."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from softmax_bench.report.plots.axes import against_vocabulary, few_ticks
from softmax_bench.report.style import (
    REFERENCE,
    dress,
    label_lines,
    line_style,
    new_figure,
)
from softmax_bench.report.tables import (
    best_trials,
    references,
    summary_table,
)
from softmax_bench.study.frames import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def perplexity(results: Results) -> Figure | None:
    """Test perplexity against V, beside that of an n-gram model and, if known, the source's."""
    table = summary_table(results)
    if "test_perplexity" not in table:
        return None
    known = table["true_perplexity"].notna().any()
    figure = against_vocabulary(table, "test_perplexity", log=True, beside=references(results))
    axes = figure.axes[0]
    dress(
        axes,
        x="vocabulary size V",
        y="test perplexity",
        title="Perplexity at equal training tokens"
        + ("" if known else " (each V is another task: compare layers at one V only)"),
    )
    return figure


def excess_perplexity(results: Results) -> Figure | None:
    """Test perplexity over that of the true source: comparable across V."""
    table = summary_table(results)
    if "excess" not in table or table["excess"].isna().all():
        return None
    figure = against_vocabulary(table, "excess", log=False, beside=references(results))
    axes = figure.axes[0]
    dress(
        axes,
        x="vocabulary size V",
        y="test perplexity / true perplexity",
        title="Excess over the source's own perplexity (1 is perfect)",
    )
    return figure


def learning_curves(results: Results) -> Figure | None:
    """Validation perplexity against training seconds, a panel a vocabulary size."""
    best = best_trials(results)
    if best.empty:
        return None
    beside = references(results)
    sizes = sorted(best["vocab_size"].unique())
    figure = new_figure(width=max(7.2, 4.2 * len(sizes)))
    panels = figure.subplots(1, len(sizes), squeeze=False)[0]
    layers = best["layer"].unique().tolist()
    for axes, size in zip(panels, sizes, strict=True):
        axes.set(xscale="log", yscale="log")
        ends = []
        at_size = best[best["vocab_size"] == size]
        for trial in at_size.itertuples():
            curve = results.curves[results.curves["id"] == trial.id]
            style = line_style(str(trial.layer), layers) | {"markersize": 3}
            axes.plot(curve["seconds"], curve["valid_perplexity"], **style)
            ends.append(
                (
                    curve["seconds"].iloc[-1],
                    curve["valid_perplexity"].iloc[-1],
                    str(trial.layer),
                    style["color"],
                )
            )
        for row in beside[beside["vocab_size"] == size].itertuples():
            axes.axhline(row.valid_perplexity, **(REFERENCE | {"marker": ""}))
            right = axes.get_xlim()[1]
            ends.append((right, row.valid_perplexity, row.reference, REFERENCE["color"]))
        dress(axes, x="training time [s]", y="validation perplexity", title=f"V = {size:,}")
        few_ticks(axes.xaxis)
        few_ticks(axes.yaxis)
        label_lines(axes, ends)
    return figure


def price(results: Results) -> Figure | None:
    """Test perplexity against training seconds at the largest V, with the front of the best."""
    table = summary_table(results)
    if "train_seconds" not in table or table["train_seconds"].isna().all():
        return None
    trained = table.dropna(subset="train_seconds")
    size = trained["vocab_size"].max()
    rows = trained[trained["vocab_size"] == size].sort_values("train_seconds")
    figure = new_figure()
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log")
    layers = rows["layer"].tolist()
    ends = []
    for row in rows.itertuples():
        style = line_style(str(row.layer), layers)
        half = row.test_high - row.test_perplexity
        error = None if np.isnan(half) else [[half], [half]]
        axes.errorbar(row.train_seconds, row.test_perplexity, yerr=error, capsize=2, **style)
        ends.append((row.train_seconds, row.test_perplexity, str(row.layer), style["color"]))
    front = rows[rows["test_perplexity"] <= rows["test_perplexity"].cummin()]
    axes.step(
        front["train_seconds"], front["test_perplexity"], where="post", zorder=0,
        **(REFERENCE | {"marker": ""}),
    )  # fmt: skip
    tokens = f"{rows['train_tokens'].iloc[0]:,.0f}"
    dress(
        axes,
        x="training time [s]",
        y="test perplexity",
        title=f"What {tokens} training tokens cost and gave at V = {size:,}",
    )
    axes.margins(0.1)
    few_ticks(axes.xaxis)
    few_ticks(axes.yaxis)
    label_lines(axes, ends)
    return figure


def frequency(results: Results) -> Figure | None:
    """Perplexity by how often the training text has a word, over the best layer's, at largest V."""
    best = best_trials(results)
    if best.empty or best["test_bands"].isna().all():
        return None
    best = best.dropna(subset="test_bands")
    size = best["vocab_size"].max()
    best = best[best["vocab_size"] == size]
    rows = [{"layer": row.layer} | band for row in best.itertuples() for band in row.test_bands]
    bands = pd.DataFrame(rows)
    nats = bands.pivot_table(index="low", columns="layer", values="nats")  # mean over seeds
    layers = nats.columns.tolist()
    whole = best.groupby("layer")["test_nats"].mean()
    reference = "full" if "full" in layers else str(whole.idxmin())
    ratio = np.exp(nats.sub(nats[reference], axis=0))
    figure = new_figure()
    axes = figure.subplots()
    axes.set_yscale("log")
    ends = []
    for layer in layers:
        style = line_style(layer, layers)
        axes.plot(range(len(ratio)), ratio[layer], **style)
        ends.append((len(ratio) - 1, ratio[layer].iloc[-1], layer, style["color"]))
    band = bands.drop_duplicates("low").set_index("low")
    share = band["tokens"] / band["tokens"].sum()
    names = [
        f"{_band_name(low, band.loc[low, 'high'])}\n{share[low]:.1%} of text" for low in ratio.index
    ]
    axes.set_xticks(range(len(ratio)), names)
    dress(
        axes,
        x="occurrences of the word in the training text",
        y=f"test perplexity / that of {reference}",
        title=f"Rare words and frequent ones, V = {size:,}",
    )
    few_ticks(axes.yaxis)
    label_lines(axes, ends)
    return figure


def _band_name(low: int, high: float) -> str:
    return f"{low:,} or more" if np.isnan(high) else f"{low:,} to {high:,.0f}"
