"""The race as a picture: how many times our time each competitor took, wins and losses alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter


def draw(folder: Path) -> None:
    """Draw ``race.json`` of ``folder`` as ``race.png`` and ``race.svg`` beside it."""
    rows: list[dict[str, Any]] = json.loads((folder / "race.json").read_text())["rows"]
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
    last.set_xlabel("time of the competitor / our time; a dot a size; right of 1 we are faster")
    for kind in ("png", "svg"):
        figure.savefig(folder / f"race.{kind}")
