"""The race as a table and a plot of each competitor's time relative to ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter


def draw(folder: Path) -> None:
    """Draw the races stored in ``folder`` as ``race.png`` and ``table.md``."""
    rows = [
        row
        for file in sorted(folder.glob("*.json"))
        for row in json.loads(file.read_text(encoding="utf-8"))["rows"]
    ]
    (folder / "table.md").write_text(_markdown(rows), encoding="utf-8")
    races: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["competitor"] != "softmax-bench":
            races.setdefault(row["race"], {}).setdefault(row["competitor"], []).append(row["ratio"])
    heights = [len(competitors) for competitors in races.values()]
    figure = Figure(
        figsize=(9, 0.34 * sum(heights) + 0.75 * len(races) + 0.6),
        dpi=150,
        layout="constrained",
        facecolor="white",
    )
    panels = figure.subplots(
        len(races), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for axes, (race, competitors) in zip(panels, races.items(), strict=True):
        for place, (name, ratios) in enumerate(reversed(competitors.items())):
            shade = "#777777" if "floor" in name else "#0072B2"
            axes.plot(ratios, [place] * len(ratios), "o", color=shade, alpha=0.7, markersize=6)
        axes.set_yticks(range(len(competitors)), list(reversed(competitors)))
        axes.set_ylim(-0.6, len(competitors) - 0.4)
        axes.set_xscale("log")
        axes.axvline(1, color="black", linewidth=1)
        axes.set_title(race, loc="left", fontsize=11)
        axes.grid(visible=True, axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    last = panels[-1]
    last.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} x"))
    last.xaxis.set_minor_formatter(NullFormatter())
    last.set_xlabel("time of the competitor / our time (a dot a size)")
    figure.savefig(folder / "race.png")


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| race | N | V | S | competitor | ms | interval | time / ours |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in rows:
        lines.append(
            f"| {row['race']} | {row['N']} | {row['V']:,} | {row['S'] or ''} | {row['competitor']} "
            f"| {row['ms']:.2f} | {row['low']:.2f} ... {row['high']:.2f} | {row['ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"
