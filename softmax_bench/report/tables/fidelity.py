"""How close the layers come to full softmax, in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from softmax_bench.records.frames import Results, derived
from softmax_bench.report.style import terminal_table

if TYPE_CHECKING:
    from rich.console import Console

_MOMENTS = ["bias", "variance", "cosine", "direction"]
_SAMPLES = ["effective_samples", "log_z_bias", "log_z_sd"]


def latest_fidelity(results: Results) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Gradients and divergences for the model and the settings that were measured last.

    Layers can only be compared on the same model.
    """
    divergences, gradients = results.divergences, results.gradients
    if divergences.empty:
        return gradients, divergences
    latest = divergences.sort_values("started").iloc[-1]
    settings = ["model", "num_states", "num_draws"]
    divergences = divergences[(divergences[settings] == latest[settings]).all(axis=1)]
    if not gradients.empty:
        gradients = gradients[gradients["id"].isin(divergences["id"])]
    return gradients, divergences


@derived
def fidelity_table(results: Results) -> pd.DataFrame:
    """One row per layer: what it has learned, and its gradient at the largest number of samples.

    ``divergence`` is in nats from the full model on the test text, ``excess`` is the layer's nats
    per token beyond the full model's, and ``log_z_*`` describes what the layer has learned;
    ``bias``, ``variance`` and so on are those of the gradient in the rows, at ``num_samples``.
    """
    gradients, divergences = latest_fidelity(results)
    if divergences.empty:
        return pd.DataFrame()
    table = divergences.assign(excess=divergences["nats"] - divergences["full_nats"])
    columns = [
        "vocab_size", "layer", "divergence", "divergence_low", "divergence_high", "excess",
        "learning_rate", "log_z_mean", "log_z_sd",
    ]  # fmt: skip
    table = table[columns].rename(
        columns={"log_z_mean": "learned_log_z_mean", "log_z_sd": "learned_log_z_sd"}
    )
    if not gradients.empty:
        rows = gradients[gradients["of"] == "weight"].sort_values("num_samples")
        measured = [name for name in ("num_samples", *_MOMENTS, *_SAMPLES) if name in rows]
        table = table.merge(
            rows.groupby("layer")[measured].last(), left_on="layer", right_index=True, how="left"
        )
    return table.sort_values("divergence", ignore_index=True)


def print_fidelity(results: Results, console: Console) -> None:
    """Print the table's most important columns."""
    from rich.text import Text

    table = fidelity_table(results)
    drawn = terminal_table()
    columns = {
        "layer": "layer", "divergence": "KL [nats]", "learned_log_z_sd": "sd log Z",
        "num_samples": "samples", "bias": "bias", "variance": "variance", "cosine": "cosine",
        "effective_samples": "effective",
    }  # fmt: skip
    shown = [name for name in columns if name in table]
    for name in shown:
        drawn.add_column(columns[name], justify="left" if name == "layer" else "right")
    for row in table[shown].to_dict("records"):
        drawn.add_row(*[Text(_cell(row[name])) for name in shown])
    console.print(drawn)


def _cell(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
