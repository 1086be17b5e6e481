"""Tables and pictures of what ``python -m benchmarks.gpu`` found."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

TITLES = {
    "checks": "Primitives and layers against float64",
    "layers": "Training steps",
    "dense": "Exact softmax: forward with backward, and evaluation",
    "training": "Perplexity as the vocabulary grows",
}
_IN_CASE = ("racer", "layer", "tokens", "width", "classes", "type", "rule")
"""Columns that the name of the case repeats."""
_LINES = (
    ("layers", "ms", "step-times", "milliseconds per step"),
    ("layers", "ms in a graph", "step-times-in-a-graph", "milliseconds per step in a CUDA graph"),
    ("training", "excess nats over the true entropy", "excess", "nats over the true entropy"),
)


def write_pages(out: Path, card: str) -> None:
    """Write ``README.md`` with all tables, and a plot of each part that grows with V."""
    frames = {part: _frame(out / "records" / part) for part in TITLES}
    text = [
        f"# On {card}",
        "",
        "Made by `python -m benchmarks.gpu`; machine and versions are in",
        "[machine.json](machine.json).",
        "",
    ]
    for part, frame in frames.items():
        if frame.empty:
            continue
        text += [f"## {TITLES[part]}", ""]
        if part == "dense" and "racer" in frame:
            frame = _relative(frame)
            _draw_races(frame, out / "races.png", card)
            text += ["![time relative to three bare products](races.png)", ""]
        for of_part, column, name, label in _LINES:
            if of_part == part and column in frame and frame[column].notna().any():
                _draw(frame, column, label, out / f"{name}.png", card)
                text += [f"![{label}]({name}.png)", ""]
        text += [_markdown(frame), ""]
    (out / "README.md").write_text("\n".join(text))


def _frame(folder: Path) -> pd.DataFrame:
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    frame = pd.DataFrame(records)
    by = [column for column in ("layer", "type", "classes", "width", "tokens") if column in frame]
    return frame.sort_values([*by, "case"]) if len(frame) else frame


def _relative(races: pd.DataFrame) -> pd.DataFrame:
    """Races with each time divided by that of two others at the same size."""
    size = ["tokens", "width", "classes", "type"]
    for baseline in ("torch.compile", "three bare products"):
        of_baseline = races[races["racer"] == baseline].set_index(size)["ms"]
        if len(of_baseline):
            times = races.join(of_baseline.rename("baseline"), on=size)["baseline"]
            evaluates = races["racer"].astype(str).str.startswith("evaluation")
            races[f"x {baseline}"] = (races["ms"] / times).mask(evaluates)
    return races


def _markdown(frame: pd.DataFrame) -> str:
    columns = [column for column in frame.columns if column not in _IN_CASE]
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += [
        "| " + " | ".join(_cell(row[column]) for column in columns) + " |"
        for _, row in frame.iterrows()
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.3g}"
    return str(value).replace("|", "/").replace("\n", " ")


def _draw(frame: pd.DataFrame, column: str, label: str, path: Path, card: str) -> None:
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    styles = itertools.product(("o-", "s--", "^:"), (f"C{n}" for n in range(10)))
    for (layer, of_layer), (style, colour) in zip(
        frame.dropna(subset=[column]).groupby("layer"), styles, strict=False
    ):
        line = of_layer.sort_values("classes")
        axes.plot(line["classes"], line[column], style, color=colour, label=layer)
    axes.set(xscale="log", xlabel="classes", ylabel=label, title=card)
    if column.startswith("ms"):
        axes.set_yscale("log")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)


def _draw_races(races: pd.DataFrame, path: Path, card: str) -> None:
    """One row of points per size: each racer's time over that of the products alone."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    known = races.dropna(subset=["x three bare products"])
    names = known.apply(
        lambda race: f"N={race.tokens:.0f} H={race.width:.0f}\nV={race.classes:.0f} {race.type}",
        axis=1,
    )
    for (racer, of_racer), marker in zip(known.groupby("racer"), "osD^v<>P*X", strict=False):
        axes.plot(of_racer["x three bare products"], names[of_racer.index], marker, label=racer)
    axes.set(xscale="log", xlabel="time, relative to three bare products", title=card)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)
