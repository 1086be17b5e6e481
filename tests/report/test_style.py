from __future__ import annotations

import numpy as np
import pytest
from colorspacious import cspace_convert
from matplotlib.colors import to_rgb

from softmax_bench.layers import layer_names
from softmax_bench.layers.registry import layer_package
from softmax_bench.report.style import MOST_NAMED, PARTS, family_place, looks

_FAMILIES = [
    "full", "sampled", "nce", "hierarchical", "adaptive", "kernel", "in_batch", "a.stranger:Layer",
]  # fmt: skip


def _closest(colours: list[str], vision: str) -> float:
    """Least distance in CIELAB between two of the colours as somebody sees them."""
    seen = np.array([to_rgb(colour) for colour in colours])
    if vision != "normal":
        seen = cspace_convert(
            seen, {"name": "sRGB1+CVD", "cvd_type": vision, "severity": 100}, "sRGB1"
        )
    lab = cspace_convert(np.clip(seen, 0, 1), "sRGB1", "CIELab")
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return float(distances[np.triu_indices(len(colours), 1)].min())


def contrast(one: str, other: str) -> float:
    """Of WCAG 2: 1 for equal colours, 21 for black on white."""

    def luminance(colour: str) -> float:
        linear = [
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            for value in to_rgb(colour)
        ]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    low, high = sorted(luminance(colour) + 0.05 for colour in (one, other))
    return high / low


@pytest.mark.parametrize("vision", ["normal", "deuteranomaly", "protanomaly"])
def test_families_are_told_apart(vision: str) -> None:
    given = looks(_FAMILIES)
    assert _closest([given[layer].colour for layer in _FAMILIES], vision) > 19
    assert _closest([given[layer].dark for layer in _FAMILIES], vision) > 19
    assert _closest(list(PARTS), vision) > 19


def test_colours_stand_out_from_the_paper() -> None:
    for look in looks(_FAMILIES).values():
        assert contrast(look.colour, "#ffffff") > 3
        assert contrast(look.dark, "#1b1e22") > 3


def test_every_layer_of_ours_has_a_family() -> None:
    own = [name for name in layer_names() if not layer_package(name)]
    stranger = family_place("a.stranger:Layer")
    assert all(family_place(name) < stranger for name in own)
    assert family_place("nce") == family_place("blackout(num_samples=3)") != family_place("full")


def test_every_layer_has_a_look_of_its_own() -> None:
    strangers = [f"their_package.module_{i}:Layer(rank={i})" for i in range(20)]
    variants = [f"nce(num_samples={i})" for i in range(5)]
    given = looks([*layer_names(), *strangers])
    assert len(set(given.values())) == len(given)
    few = looks(["full", "nce", *variants])
    assert len(set(few.values())) == len(few)


def test_among_many_the_options_of_a_layer_share_its_look() -> None:
    variants = [f"nce(num_samples={i})" for i in range(MOST_NAMED)]
    given = looks(["nce", "blackout", *variants])
    assert {given[one] for one in variants} == {given["nce"]} != {given["blackout"]}


def test_the_look_of_a_layer_depends_on_no_other() -> None:
    """But for several of one kind, which must differ."""
    given = looks(layer_names())
    for name in layer_names():
        assert looks([name])[name] == given[name]
    assert looks(["nce(num_samples=25)"])["nce(num_samples=25)"] == given["nce"]
