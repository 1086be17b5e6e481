"""Tables and pictures of what ``python -m benchmarks.gpu`` found."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

TITLES = {
    "checks": "Every layer against float64",
    "layers": "Training steps",
    "dense": "Exact softmax, forward and backward",
    "training": "Perplexity as the vocabulary grows",
}
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
        for of_part, column, name, label in _LINES:
            if of_part == part and column in frame and frame[column].notna().any():
                _draw(frame, column, label, out / f"{name}.png", card)
                text += [f"![{label}]({name}.png)", ""]
        text += [_markdown(frame), ""]
    (out / "README.md").write_text("\n".join(text))


def _frame(folder: Path) -> pd.DataFrame:
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    frame = pd.DataFrame(records)
    by = [column for column in ("racer", "layer") if column in frame]
    return frame.sort_values([*by, "case"]) if len(frame) else frame


def _markdown(frame: pd.DataFrame) -> str:
    columns = [c for c in frame.columns if c != "case"] or ["case"]
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
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for layer, of_layer in frame.dropna(subset=[column]).groupby("layer"):
        line = of_layer.sort_values("classes")
        axes.plot(line["classes"], line[column], marker="o", label=layer)
    axes.set(xscale="log", xlabel="classes", ylabel=label, title=card)
    if column.startswith("ms"):
        axes.set_yscale("log")
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=120)
