from __future__ import annotations

import itertools
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.report import write_report
from softmax_bench.report.plots import PLOTS
from softmax_bench.report.style import colour, line_style
from softmax_bench.study.frames import frames, load_results
from softmax_bench.study.record import Record
from softmax_bench.study.store import write_record
from tests.records import speed_record, train_record


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_report_files(store: Path) -> None:
    page = write_report(store)
    assert page == store / "report" / "index.html"
    names = {path.name for path in page.parent.iterdir()}
    assert names >= {f"{plot}.{kind}" for plot in PLOTS for kind in ("png", "svg")}
    assert names >= {"table.md", "table.csv", "index.html"}
    seen = _Page(page.read_text())
    assert seen.tags.count("svg") == len(PLOTS)
    assert "At V = 100,000 the fastest layer is hierarchical: 10.2 ms" in seen.words
    assert "98 times faster than full softmax" in seen.words
    assert "Test processor" in seen.words


def test_page_loads_nothing(store: Path) -> None:
    seen = _Page(write_report(store).read_text())
    assert all(link.startswith("#") for link in seen.links)
    assert "script" not in seen.tags


def test_hostile_names_are_text(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>"
    write_record(tmp_path, train_record(name, 10, 5.0, corpus=name))
    write_record(tmp_path, speed_record(name, 10, 5.0))
    seen = _Page(write_report(tmp_path).read_text())
    assert "script" not in seen.tags
    assert name in seen.words


def test_the_same_results_give_the_same_files(store: Path, tmp_path: Path) -> None:
    first, second = (write_report(store, tmp_path / name) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_labels_do_not_overlap() -> None:
    """Four layers with all but equal results."""
    records = [
        make(layer, size, 10.0 + number / 1000)
        for number, layer in enumerate(["full", "hierarchical", "nce", "sampled"])
        for size in (100, 1000)
        for make in (train_record, speed_record)
    ]
    for name, (draw, _) in PLOTS.items():
        figure = draw(frames(records))
        assert figure is not None
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        for axes in figure.axes:
            boxes = [Text.get_window_extent(text) for text in axes.texts]
            assert len(boxes) >= 4 or name == "phases"  # whose bars are named on the axis
            for one, other in itertools.combinations(boxes, 2):
                assert not one.overlaps(other), f"labels overlap in {name}"
            for box in boxes:
                assert box.x1 <= figure.bbox.x1, f"a label is cut off in {name}"


def test_a_layer_keeps_its_colour() -> None:
    assert colour("nce(num_samples=25)") == colour("nce")
    families = [colour(name) for name in ("full", "hierarchical", "nce", "sampled")]
    assert len(set(families)) == 4


def test_layers_of_strangers_are_told_apart() -> None:
    """They share a few colours; those of one colour differ in line and marker."""
    names = [f"their_package.module_{i}:Layer(rank={i})" for i in range(20)]
    looks = [tuple(line_style(name, names).values()) for name in names]
    assert len(set(looks)) == len(names)
    assert colour(names[3]) == colour("their_package.module_3:Layer")


def test_names_in_plots_are_text() -> None:
    """Dollar signs would make mathematics of them."""
    name = "their_package.module:Layer(noise='$q$', power='$')"
    figure = PLOTS["step-time"][0](frames([speed_record(name, 10, 1.0)]))
    assert figure is not None
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (label,) = figure.axes[0].texts
    assert label.get_text() == name
    assert not label.get_parse_math()
    assert Text.get_window_extent(label).x1 <= figure.bbox.x1


@pytest.mark.parametrize("record", [train_record("full", 10, 5.0), speed_record("full", 10, 5.0)])
def test_one_lonely_record(tmp_path: Path, record: Record) -> None:
    write_record(tmp_path, record)
    assert "full" in write_report(tmp_path).read_text()


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(SoftmaxBenchError, match="it holds no"):
        load_results(tmp_path)
    with pytest.raises(SoftmaxBenchError, match="no results at"):
        write_report(tmp_path / "nowhere")
