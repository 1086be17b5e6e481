"""The look of plots: a layer has one colour, marker and dash in every plot, also on the page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

INK = "#222222"
GREY = "#777777"
"""Colour of lines that belong to no layer."""


class Look(NamedTuple):
    """The look by which a layer is recognised."""

    colour: str
    dark: str
    """Its colour on a dark page."""
    marker: str
    """One of :data:`MARKERS`."""
    dash: tuple[float, ...]
    """Lengths of dashes and gaps in units of the line width; empty for a solid line."""


# The hues of Okabe & Ito (2008), adjusted so that any two in a column are 19 apart in CIELAB for
# readers with normal vision, deuteranopia and protanopia, and all have a contrast of 3 to the
# background (tests/report/test_style.py).
_COLOURS = {
    "exact": ("#000000", "#ffffff"),
    "sampled": ("#0060a8", "#3d94e6"),
    "contrastive": ("#b12a00", "#f0743a"),
    "trees": ("#1f905f", "#49e8a7"),
    "reduced": ("#be609b", "#d889be"),
    "proposals": ("#399ad9", "#8ed2fe"),
    "batch": ("#bb8003", "#ffcc43"),
    "other": ("#594e4b", "#a38d7b"),
}
"""Colours on white and dark of each folder of ``softmax_bench/layers``, and of other layers."""

PARTS = ("#b8b8b8", "#1b4f72", "#5b9bd5", "#f2c14e", "#c8501e")
"""Colours of the parts of a stacked bar, which also differ in lightness."""

MOST_NAMED = 16
"""Among more layers than these, the options of one layer share its look."""
_LONGEST_LABEL = 44
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_NAME = re.compile(r'^    name = "(.+)"$', re.MULTILINE)
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))


def family(layer: str) -> str:
    """A layer's name without its options."""
    return layer.split("(", 1)[0]


@cache
def _members() -> list[list[str]]:
    """Names of each family's layers, read from the source, because reports import no torch."""
    layers = Path(__file__).parents[1] / "layers"
    return [
        [
            name
            for file in sorted((layers / family).glob("*.py"))
            for name in _NAME.findall(file.read_text("utf-8"))
        ]
        for family in _COLOURS
    ]


def family_place(layer: str) -> int:
    """The index of a layer's family; layers from other packages are last."""
    places = [place for place, names in enumerate(_members()) if family(layer) in names]
    return places[0] if places else len(_COLOURS) - 1


def looks(layers: Iterable[str]) -> dict[str, Look]:
    """The look of each layer of a report.

    The colour is that of the layer's family. Members of a family differ by a fixed marker and dash;
    if these are taken by the same layer with other options, the next ones are used, up to
    :data:`MOST_NAMED` layers.
    """
    given: dict[str, Look] = {}
    taken: dict[tuple[str, int], str] = {}
    in_order = sorted(set(layers), key=lambda one: (_place(one), one))
    for layer in in_order:
        owner = layer if len(in_order) <= MOST_NAMED else family(layer)
        colour, dark, place = _place(layer)
        while taken.setdefault((colour, place), owner) != owner:
            place += 1
        marker, dash = MARKERS[place % len(MARKERS)], _DASHES[place % len(_DASHES)]
        given[layer] = Look(colour, dark, marker, dash)
    return given


def _place(layer: str) -> tuple[str, str, int]:
    family_of_layer = family_place(layer)
    members = _members()[family_of_layer]
    return *list(_COLOURS.values())[family_of_layer], members.index(family(layer)) if members else 0


def number_text(value: float, digits: int = 3) -> str:
    """A readable number: few digits, thousands separators, and no needless powers of ten."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def two_digits(value: float) -> str:
    """A value that is known roughly, without powers of ten."""
    return f"{float(f'{value:.2g}'):,.10g}"


def printable(name: str) -> str:
    """A name without control sequences for the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def terminal_table() -> Table:
    """An empty table for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def markdown_row(cells: Iterable[str]) -> str:
    """A row of a Markdown table, with cells escaped so that they add neither columns nor HTML."""
    safe = (cell.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|") for cell in cells)
    return "| " + " | ".join(" ".join(cell.split()) for cell in safe) + " |"


def short(name: str) -> str:
    """A name short enough for a label, without the middle of a long one."""
    if len(name) <= _LONGEST_LABEL:
        return name
    head = _LONGEST_LABEL // 2
    return f"{name[:head]}…{name[head + 1 - _LONGEST_LABEL :]}"
