"""How well the layers predict."""

from __future__ import annotations

import numpy as np
import pandas as pd

from softmax_bench.records.frames import Results
from softmax_bench.report.plots.chart import Axis, Chart, Lines, Panel, layer_line
from softmax_bench.report.plots.vocabulary import against_vocabulary, size_title
from softmax_bench.report.tables.selection import best_trials
from softmax_bench.report.tables.summary import references, summary_table


def perplexity(results: Results) -> Chart | None:
    """Test perplexity against V, with those of an n-gram model and, if known, the source."""
    table = summary_table(results)
    if "test_perplexity" not in table:
        return None
    several = table.dropna(subset="test_perplexity")["vocab_size"].nunique() > 1
    others = references(results)
    sentences = [
        "Exact and normalised over the whole vocabulary for every layer, whatever it was trained "
        "with. Bars, where there are several seeds, are 95 % intervals."
    ]
    if several:
        sentences.append("Each V is a different task, so compare layers at one V only.")
    if others["reference"].str.contains("gram").any():
        sentences.append(
            "N-gram models (interpolated Kneser-Ney) count the whole training text, and the tokens "
            "that the layers read if these are fewer."
        )
    return against_vocabulary(
        table,
        "test_perplexity",
        name="perplexity",
        title="Test perplexity at equal training tokens"
        + (" (compare at one V only)" if several else ""),
        caption=" ".join(sentences),
        y=Axis("test perplexity", log=True),
        bounds=("test_low", "test_high"),
        beside=others,
    )


def over_full(results: Results) -> Chart | None:
    """Ratio of test perplexity to full softmax's, against V."""
    table = summary_table(results)
    if "over_full" not in table or (table["over_full"].dropna() == 1).all():
        return None
    return against_vocabulary(
        table,
        "over_full",
        name="over-full",
        title="Price in perplexity: the ratio to full softmax's",
        caption="At equal training tokens, each seed compared with the same seed of full softmax. "
        "Bars, where there are several seeds, are 95 % intervals.",
        y=Axis("test perplexity / that of full softmax", log=True),
        bounds=("over_full_low", "over_full_high"),
        apart=True,
    )


def bits_per_byte(results: Results) -> Chart | None:
    """Bits per byte of the test text, where several vocabularies predict it."""
    table = summary_table(results)
    if "bits_per_byte" not in table:
        return None
    table = table.dropna(subset="bits_per_byte")
    if table["vocab_size"].nunique() < 2:
        return None
    return against_vocabulary(
        table,
        "bits_per_byte",
        name="bits-per-byte",
        title="Bits per byte of the test text: one scale for all V and tokenisers",
        caption="Every vocabulary predicts the same bytes. Unknown words are charged for the "
        "choice among the words outside the vocabulary.",
        y=Axis("bits per byte"),
    )


def adjusted_perplexity(results: Results) -> Chart | None:
    """Test perplexity that charges for unknown words and is comparable across V."""
    return against_vocabulary(
        summary_table(results),
        "adjusted_perplexity",
        name="adjusted-perplexity",
        title="Test perplexity with unknown words charged: one scale for all V",
        caption="Each unknown word is also charged for the choice among the words outside the "
        "vocabulary, taken as equally likely (Ueberla 1994), so that all vocabularies predict the "
        "same text.",
        y=Axis("test perplexity, unknown words charged", log=True),
    )


def excess_perplexity(results: Results) -> Chart | None:
    """Test perplexity relative to that of the true source, which is comparable across V."""
    table = summary_table(results)
    if "excess" not in table or table["excess"].isna().all():
        return None
    for end in ("low", "high"):
        table[f"excess_{end}"] = table[f"test_{end}"] / table["true_perplexity"]
    return against_vocabulary(
        table,
        "excess",
        name="excess-perplexity",
        title="Excess over the source's own perplexity (1 is perfect)",
        caption="The best possible perplexity of the synthetic language is known exactly. The "
        "excess over it has not been learned, and can be compared across vocabularies.",
        y=Axis("test perplexity / true perplexity"),
        bounds=("excess_low", "excess_high"),
        beside=references(results),
    )


def frequency(results: Results) -> Chart | None:
    """Perplexity by word frequency in the training text, relative to full softmax."""
    best = best_trials(results)
    if best.empty or best["test_bands"].isna().all():
        return None
    best = best.dropna(subset="test_bands")
    bands = pd.DataFrame(
        [
            {"vocab_size": row.vocab_size, "layer": row.layer} | band
            for row in best.itertuples()
            for band in row.test_bands
        ]
    )
    reference = _reference(best)
    places = {low: float(place) for place, low in enumerate(sorted(bands["low"].unique()))}
    panels = []
    for size, at_size in bands.groupby("vocab_size"):
        nats = at_size.pivot_table(index="low", columns="layer", values="nats")  # mean over seeds
        if reference not in nats:
            continue
        ratio = np.exp(nats.sub(nats[reference], axis=0))
        series = [
            layer_line(layer, [places[low] for low in ratio.index], ratio[layer])
            for layer in ratio.columns
        ]
        panels.append(Panel(size_title(int(size)), series, int(size)))
    share = bands.groupby("low")["tokens"].sum() / bands["tokens"].sum()
    highs = bands.groupby("low")["high"].first()
    ticks = [
        (place, f"{_band_name(int(low), highs[low])}\n{share[low]:.1%} of text")
        for low, place in places.items()
    ]
    return Lines(
        name="frequency",
        title="Perplexity by word frequency",
        caption="The words of the test text are grouped by how often they occur in the training "
        f"text. A layer loses where it is above the line of {reference}.",
        x=Axis("occurrences of the word in the training text", ticks=ticks),
        y=Axis(f"test perplexity / that of {reference}", log=True),
        panels=panels,
    )


def _reference(best: pd.DataFrame) -> str:
    """Full softmax, or the best of the layers that most vocabulary sizes have."""
    layers = best.groupby("layer").agg(sizes=("vocab_size", "nunique"), nats=("test_nats", "mean"))
    if "full" in layers.index:
        return "full"
    return str(layers.sort_values(["sizes", "nats"], ascending=[False, True]).index[0])


def _band_name(low: int, high: float) -> str:
    return f"{low:,} or more" if pd.isna(high) else f"{low:,} to {high:,.0f}"
