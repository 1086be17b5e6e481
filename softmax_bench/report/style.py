"""How plots look: a layer keeps its colour in every plot, and labels stand at the lines."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito (2008): told apart by colour-blind readers, and in print.
_FIXED = {
    "full": "#000000",
    "hierarchical": "#009E73",
    "nce": "#D55E00",
    "sampled": "#0072B2",
}
_OTHERS = ("#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C564B")
REFERENCE: dict[str, Any] = {
    "color": "#777777", "linestyle": ":", "marker": "_", "markersize": 5
}  # fmt: skip
"""Lines that are no layer's."""
PHASE_COLOURS = ("#999999", "#0072B2", "#56B4E9", "#CC79A7", "#E69F00")
"""Of drawing, forward, backward, clipping and the optimiser."""
_STYLES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def family(layer: str) -> str:
    """A layer's name without its options."""
    return layer.split("(", 1)[0]


def colour(layer: str) -> str:
    """Colour of a layer: that of its family, the same in every plot and every report."""
    name = family(layer)
    return _FIXED.get(name) or _OTHERS[zlib.crc32(name.encode()) % len(_OTHERS)]


def line_style(layer: str, layers: Sequence[str]) -> dict[str, Any]:
    """Line and marker that tell a layer from the others of its colour."""
    place = sorted(one for one in set(layers) if colour(one) == colour(layer)).index(layer)
    return {
        "color": colour(layer),
        "linestyle": _STYLES[place % len(_STYLES)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "markersize": 5,
    }


def new_figure(width: float = 7.2, height: float = 4.2) -> Figure:
    """An empty figure on white, laid out so that nothing is cut off."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def dress(axes: Axes, *, x: str, y: str, title: str) -> None:
    """Names, a light grid, no box."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def label_lines(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each line's name beside its end, pushed apart so that no two overlap.

    Args:
        axes: Where the lines are; its scales and limits must be final.
        ends: x, y, text and colour of each line's end.
    """
    if not ends:
        return
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    places = sorted(
        (float(to_axes.transform((x, y))[1]), x, y, text, shade) for x, y, text, shade in ends
    )
    height = 0.075 * 4.2 / axes.get_figure(root=True).get_figheight()  # type: ignore[union-attr]
    heights = _spread([place[0] for place in places], height)
    # None below the axes, where the ticks' labels are.
    heights = [max(at, height * (place + 0.5)) for place, at in enumerate(heights)]
    for at, (_, x, y, text, shade) in zip(heights, places, strict=True):
        axes.annotate(
            text,
            xy=(x, y),
            xytext=(1.02, at),
            textcoords="axes fraction",
            color=shade,
            fontsize=9,
            va="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": shade, "linewidth": 0.5, "alpha": 0.5},
        )


def _spread(heights: Sequence[float], least: float) -> list[float]:
    """Rising heights, moved as little as it takes to be ``least`` apart."""
    # Runs of labels that would touch share the room around their common middle.
    runs: list[list[float]] = []
    for height in heights:
        runs.append([height])
        while len(runs) > 1 and _top(runs[-2], least) > _bottom(runs[-1], least):
            last = runs.pop()
            runs[-1] += last
    return [_bottom(run, least) + least * (i + 0.5) for run in runs for i in range(len(run))]


def _bottom(run: list[float], least: float) -> float:
    return sum(run) / len(run) - least * len(run) / 2


def _top(run: list[float], least: float) -> float:
    return sum(run) / len(run) + least * len(run) / 2
