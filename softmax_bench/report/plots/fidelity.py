"""How close the layers come to full softmax: their gradients, samples and learned models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from softmax_bench.records.frames import Results
from softmax_bench.report.plots.chart import Axis, Chart, Dots, Lines, Panel, Row, Rows, Series
from softmax_bench.report.plots.vocabulary import size_title
from softmax_bench.report.tables.fidelity import latest_fidelity

_GRADIENTS = {"hidden": "gradient of the hidden states", "weight": "gradient of the rows"}
_SAME_ROWS = (
    "Each layer uses the rows of one trained full model, on a batch of its training text. Values "
    "are relative to the exact gradient. Horizontal lines are layers without a number of samples."
)
_ROUNDING = 1e-7
"""Zero, up to rounding in float32."""


def _against_samples(
    results: Results,
    *,
    column: str,
    name: str,
    title: str,
    caption: str,
    y: Axis,
    bounds: tuple[str, str],
    panels: dict[str, str] = _GRADIENTS,
) -> Chart | None:
    rows, _ = latest_fidelity(results)
    if rows.empty or column not in rows:
        return None
    size = rows["vocab_size"].max()
    rows = rows[(rows["vocab_size"] == size) & rows[column].notna()]
    if y.log:
        rows = rows[rows[column] > _ROUNDING]
    counts = sorted(rows["num_samples"].dropna().unique())
    if not counts:
        return None
    drawn = []
    for of, of_title in panels.items():
        series = []
        for layer, points in rows[rows["of"] == of].groupby("layer"):
            points = points.sort_values("num_samples")
            if points["num_samples"].isna().all():
                line = {"x": [counts[0], counts[-1]], "y": 2 * points[column].tolist()}
                series.append(Series(name=str(layer), layer=str(layer), markers=False, **line))
                continue
            low, high = (points[bound].tolist() for bound in bounds)
            series.append(
                Series(
                    name=str(layer),
                    layer=str(layer),
                    x=points["num_samples"].astype(float).tolist(),
                    y=points[column].tolist(),
                    low=low,
                    high=high,
                )
            )
        drawn.append(Panel(of_title, series))
    x = Axis("samples", log=True, ticks=[(float(k), f"{k:,.0f}") for k in counts])
    return Lines(
        name=name, title=f"{title}, {size_title(size)}", caption=caption, x=x, y=y, panels=drawn
    )


AGAINST_SAMPLES: list[Callable[[Results], Chart | None]] = [
    partial(
        _against_samples,
        column="bias",
        name="gradient-bias",
        title="Bias of the gradient",
        caption=f"{_SAME_ROWS} A bias does not average out over steps. Bars are 95 % intervals, "
        "without the contribution of the finite number of draws. If a bar reaches the bottom, the "
        "bias cannot be distinguished from 0; if the estimate is 0, there is no point.",
        y=Axis("|mean gradient - exact| / |exact|", log=True),
        bounds=("bias_low", "bias_high"),
    ),
    partial(
        _against_samples,
        column="variance",
        name="gradient-variance",
        title="Variance of the gradient",
        caption=f"{_SAME_ROWS} At 1, a step's noise is as long as the exact gradient.",
        y=Axis("variance / |exact|^2", log=True),
        bounds=("variance_low", "variance_high"),
    ),
    partial(
        _against_samples,
        column="cosine",
        name="gradient-cosine",
        title="Cosine of a step's gradient to the exact one",
        caption=f"{_SAME_ROWS} 1 is the exact direction. A learning rate can compensate for a "
        "wrong length, but not for a wrong direction.",
        y=Axis("cosine"),
        bounds=("cosine_low", "cosine_high"),
    ),
    partial(
        _against_samples,
        column="effective_samples",
        name="effective-samples",
        title="Effective sample size",
        caption="How many draws from the softmax itself would estimate the normaliser as well: the "
        "median over hidden states. Bars begin at the lower decile.",
        y=Axis("effective samples", log=True),
        bounds=("effective_samples_low", "effective_samples"),
        panels={"weight": ""},
    ),
]
"""Charts of the gradient and of the samples against the number of samples."""


def divergence(results: Results) -> Chart | None:
    """How far the layers' learned models are from the full model, as dots."""
    _, divergences = latest_fidelity(results)
    if divergences.empty:
        return None
    groups = []
    for size, rows in divergences.groupby("vocab_size"):
        rows = rows.sort_values("divergence")
        groups.append(
            Rows(
                size_title(size),
                [
                    Row(
                        layer=row.layer,
                        values=[row.divergence],
                        low=row.divergence_low,
                        high=row.divergence_high,
                    )
                    for row in rows.itertuples()
                ],
            )
        )
    return Dots(
        name="divergence",
        title="Divergence from the full model",
        caption="Kullback-Leibler divergence, exact, mean over test text with 95 % intervals. "
        "Each layer was trained from scratch on the hidden states of one full model, with as many "
        "tokens. Full softmax trained in this way shows how much is due to starting anew. The "
        "hidden states were made for full softmax, to the disadvantage of trees and clusters.",
        x=Axis("KL(full model || layer) [nats]", log=True),
        panels=groups,
    )
