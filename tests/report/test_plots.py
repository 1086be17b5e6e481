from __future__ import annotations

import itertools

import msgspec
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from softmax_bench.layers import layer_names
from softmax_bench.records.frames import Results, frames
from softmax_bench.report.plots import Chart, charts, draw, layers_of
from softmax_bench.report.plots.chart import Panel
from softmax_bench.report.plots.draw import spread
from softmax_bench.report.style import MOST_NAMED, looks
from tests.records import speed_record, train_record

FOUR = ["full", "hierarchical", "nce", "sampled"]


def alike(layers: list[str], sizes: list[int]) -> Results:
    """Layers with all but equal results, two learning rates each."""
    return frames(
        [
            record
            for number, layer in enumerate(layers)
            for size in sizes
            for record in (
                train_record(layer, size, 10.0 + number / 1000),
                train_record(layer, size, 20.0 + number / 1000, rate=0.2),
                speed_record(layer, size, 10.0 + number / 1000),
            )
        ]
    )


def check_labels(chart: Chart, least: int) -> None:
    figure = draw(chart, looks(layers_of(chart)))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in figure.axes:
        boxes = [Text.get_window_extent(text) for text in axes.texts]
        names = (
            [text.get_text() for text in axes.get_yticklabels()] if chart.kind != "lines" else []
        )
        assert len(boxes) + len(names) >= least
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other), f"labels overlap in {chart.name}"
        for box in [*boxes, axes.get_tightbbox()]:
            assert box is not None
            assert box.x0 >= -1, f"cut off on the left in {chart.name}"
            assert box.y0 >= -1, f"cut off below in {chart.name}"
            assert box.x1 <= figure.bbox.x1 + 1, f"cut off on the right in {chart.name}"
            assert box.y1 <= figure.bbox.y1 + 1, f"cut off above in {chart.name}"
    title = figure.texts[0]
    assert Text.get_window_extent(title).x1 <= figure.bbox.x1, f"title cut off in {chart.name}"


@pytest.mark.parametrize(
    ("layers", "sizes"),
    [(FOUR, [1000]), (FOUR, [10, 100, 1000, 10_000]), (layer_names(), [10, 10_000])],
    ids=["one V", "four V", "all layers"],
)
def test_labels_neither_overlap_nor_are_cut_off(layers: list[str], sizes: list[int]) -> None:
    made = charts(alike(layers, sizes))
    assert len(made) >= 11
    for chart in made:
        if chart.name != "huffman-depth":
            check_labels(chart, len(layers))


def test_bits_per_byte_and_the_price_in_perplexity_are_drawn_against_v() -> None:
    records = [
        train_record(layer, size, perplexity)
        for size in (10, 100)
        for layer, perplexity in (("full", 99.0), ("nce", 109.0))
    ]
    made = {chart.name: chart for chart in charts(frames(records))}
    assert "bits-per-byte" not in made  # unknown for this text
    (panel,) = made["over-full"].panels
    lines = {one.layer: one.y for one in panel.series}  # type: ignore[union-attr]
    assert lines == {"full": [1.0, 1.0], "nce": pytest.approx([1.1, 1.1])}
    axes = draw(made["over-full"], looks(["full", "nce"])).axes[0]
    at_ten = {drawn[0].get_transform().transform((10, 1))[0] for drawn in axes.containers}
    assert len(at_ten) == 2  # so that their intervals can be told
    known = []
    for record in records:
        assert record.result.test is not None
        test = msgspec.structs.replace(record.result.test, bits_per_byte=2.0)
        result = msgspec.structs.replace(record.result, test=test)
        known.append(msgspec.structs.replace(record, result=result))
    made = {chart.name: chart for chart in charts(frames(known))}
    (panel,) = made["bits-per-byte"].panels
    assert {one.layer: one.y for one in panel.series} == {"full": [2.0, 2.0], "nce": [2.0, 2.0]}  # type: ignore[union-attr]


def test_bits_per_byte_for_time_joins_the_vocabularies_of_a_layer_and_has_one_front() -> None:
    ends = {("full", 10): (40.0, 2.5), ("full", 100): (400.0, 2.0), ("nce", 10): (30.0, 3.0),
            ("nce", 100): (20.0, 2.5)}  # fmt: skip
    records = []
    for (layer, size), (seconds, bits) in ends.items():
        record = train_record(layer, size, 99.0)
        assert record.result.test is not None
        test = msgspec.structs.replace(record.result.test, bits_per_byte=bits)
        result = msgspec.structs.replace(record.result, test=test, train_seconds=seconds)
        records.append(msgspec.structs.replace(record, result=result))
    made = {chart.name: chart for chart in charts(frames(records))}
    (panel,) = made["bits-per-byte-for-time"].panels
    assert isinstance(panel, Panel)
    assert {one.name: (one.x, one.y) for one in panel.series} == {
        "full": ([40, 400], [2.5, 2.0]),
        "nce": ([30, 20], [3.0, 2.5]),
        "the front": ([20, 40, 400, 400], [2.5, 2.5, 2.0, 2.0]),
    }


def test_options_of_one_layer_are_joined_by_their_own_front() -> None:
    few, some, many = (f"sampled(num_samples={samples})" for samples in (10, 100, 1000))
    perplexities = {"full": 90.0, few: 130.0, some: 140.0, many: 100.0}
    trained = [train_record(layer, 10, value) for layer, value in perplexities.items()]
    timed = [speed_record(layer, 10, 1.0 + place) for place, layer in enumerate(perplexities)]
    made = charts(frames([*trained, *timed]))
    (panel,) = next(chart for chart in made if chart.name == "price").panels
    lines = [one for one in panel.series if one.name.startswith("front of")]  # type: ignore[union-attr]
    assert [(one.name, one.y) for one in lines] == [("front of sampled", [131.0, 101.0])]


def test_many_options_of_a_layer_have_one_label_and_far_layers_are_named_below() -> None:
    options = [f"nce(num_samples={samples})" for samples in range(MOST_NAMED)]
    perplexities = {"full": 90.0, "rff": 500.0} | {one: 100.0 + n for n, one in enumerate(options)}
    trained = [train_record(layer, 10, value) for layer, value in perplexities.items()]
    timed = [speed_record(layer, 10, 1.0 + place) for place, layer in enumerate(perplexities)]
    price = next(one for one in charts(frames([*trained, *timed])) if one.name == "price")
    (panel,) = price.panels
    labels = [one.name for one in panel.series if one.curve == 0]  # type: ignore[union-attr]
    assert labels == ["full", "nce", "the front"]
    assert price.caption.endswith("at more than 2 times the lowest perplexity: rff.")


def test_names_in_plots_are_text() -> None:
    """Dollar signs would make mathematics of them."""
    name = "their.module:Layer(noise='$q$', power='$')"
    results = frames([speed_record(name, size, 1.0) for size in (10, 100)])
    chart = next(chart for chart in charts(results) if chart.name == "step-time")
    figure = draw(chart, looks([name]))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (label,) = [text for text in figure.axes[0].texts if text.get_text().startswith(name[:20])]
    assert not label.get_parse_math()
    assert Text.get_window_extent(label).x1 <= figure.bbox.x1


def test_places_are_spread_as_little_as_it_takes() -> None:
    assert spread([0.1, 0.5, 0.9], 0.1, 0, 1) == pytest.approx([0.1, 0.5, 0.9])
    assert spread([0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.45, 0.55])
    assert spread([0.0, 0.0], 0.1, 0, 1) == pytest.approx([0.05, 0.15])
    assert spread([1.0, 1.0], 0.1, 0, 1) == pytest.approx([0.85, 0.95])


def test_crossing_and_floor_are_marked() -> None:
    records = [
        speed_record("full", 100, 1.0),
        speed_record("full", 10_000, 100.0),
        speed_record("flat", 100, 10.0),
        speed_record("flat", 10_000, 10.0),
    ]
    chart = next(chart for chart in charts(frames(records)) if chart.name == "step-time")
    assert chart.kind == "lines"
    (panel,) = chart.panels
    ((x, y, text),) = panel.rings  # type: ignore[union-attr]
    assert (x, y) == pytest.approx((1000, 10_000))
    assert text == "flat is faster than full from about V = 1,000 on"
    figure = draw(chart, looks(["full", "flat"]))
    assert "≈ 1,000" in [text.get_text() for text in figure.axes[0].texts]
    floor = next(one for one in panel.series if one.layer is None)  # type: ignore[union-attr]
    # 6 N V H operations at 1e10 a second.
    assert floor.y == pytest.approx([6 * 20 * 8 * size / 1e10 * 1e3 for size in (100, 10_000)])


def test_parts_of_a_step_add_up_to_the_step() -> None:
    """Each is a median of its own, and medians of parts may add up to more than that of the sum."""
    record = speed_record("full", 100, 1.0)
    phases = dict(record.result.phases)
    phases["draw"] = msgspec.structs.replace(phases["draw"], median=0.9)
    result = msgspec.structs.replace(record.result, phases=phases)
    found = frames([msgspec.structs.replace(record, result=result), speed_record("nce", 100, 0.5)])
    chart = next(chart for chart in charts(found) if chart.name == "phases")
    (panel,) = chart.panels
    totals = {row.layer: sum(row.values) for row in panel.rows}  # type: ignore[union-attr]
    assert totals == pytest.approx({"full": 1000, "nce": 500})


def test_performance_profile() -> None:
    """Two sizes; the slow one is twice as slow at the first and was not timed at the second."""
    records = [
        speed_record("fast", 10, 1.0),
        speed_record("slow", 10, 2.0),
        speed_record("fast", 100, 1.0),
        speed_record("third", 100, 4.0),
    ]
    chart = next(chart for chart in charts(frames(records)) if chart.name == "profile")
    assert chart.kind == "lines"
    lines = {one.layer: dict(zip(one.x, one.y, strict=True)) for one in chart.panels[0].series}  # type: ignore[union-attr]
    assert set(lines["fast"].values()) == {100.0}
    assert lines["slow"][1.0] == 0
    assert lines["slow"][2.0] == 50
    assert lines["third"][4.0] == 50
    assert max(lines["slow"].values()) == 50  # what was not measured is not solved


def test_depth_of_the_huffman_tree_follows_the_bound() -> None:
    chart = next(
        chart
        for chart in charts(frames([speed_record("hierarchical", 1000, 1.0)]))
        if chart.name == "huffman-depth"
    )
    assert chart.kind == "lines"
    tree, bound = chart.panels[0].series  # type: ignore[union-attr]
    assert tree.layer == "hierarchical"
    assert max(abs(a - b) for a, b in zip(tree.y, bound.y, strict=True)) < 1.5
