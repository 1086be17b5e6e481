from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from softmax_bench.cli.output import make_console, show_report
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.records.frames import load_results
from softmax_bench.records.record import Record
from softmax_bench.records.store import write_record
from softmax_bench.report import write_report
from softmax_bench.report.plots import charts
from softmax_bench.report.show.page import render_page
from softmax_bench.report.style import looks
from tests.records import fill_store, speed_record, train_record


class Page(HTMLParser):
    """What a page says and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self._within = ""
        self._data = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._within = tag if tag in ("script", "style") else ""
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if not self._within:
            self.words += data
        elif self._within == "script" and not self._data:
            self._data = data

    @property
    def data(self) -> Any:
        return json.loads(self._data)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the whole module: writing a report takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    fill_store(folder)
    return folder


@pytest.fixture(scope="module")
def page(store: Path) -> Path:
    return write_report(store)


def test_report_files(store: Path, page: Path) -> None:
    assert page == store / "report" / "index.html"
    names = {path.name for path in page.parent.iterdir()}
    drawn = {chart.name for chart in charts(load_results(store))}
    assert {"step-time", "memory", "price", "perplexity", "profile"} < drawn
    assert names >= {f"{name}.{kind}" for name in drawn for kind in ("png", "svg", "csv")}
    assert names >= {"table.md", "table.csv", "index.html"}
    seen = Page(page.read_text())
    assert seen.tags.count("figure") == len(drawn)
    assert {chart["name"] for chart in seen.data["charts"]} == drawn
    assert "At V = 100,000, hierarchical is fastest (10.2 ms" in seen.words
    assert "98 times full softmax's speed" in seen.words
    assert "Test processor" in seen.words


def test_data_on_the_page_is_that_of_the_files(page: Path) -> None:
    for chart in Page(page.read_text()).data["charts"]:
        stored = pd.read_csv(page.parent / f"{chart['name']}.csv")
        shown = pd.DataFrame(chart["data"]["rows"], columns=chart["data"]["columns"])
        pd.testing.assert_frame_equal(stored, shown, check_dtype=False, rtol=1e-5)


def test_page_loads_nothing(page: Path) -> None:
    text = page.read_text()
    assert all(link.startswith("#") for link in Page(text).links)
    assert "default-src 'none'" in text


def test_hostile_names_are_text(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    write_record(tmp_path, train_record(name, 10, 5.0, corpus=name))
    write_record(tmp_path, speed_record(name, 10, 5.0))
    results = load_results(tmp_path)
    seen = Page(render_page(results, charts(results), looks([name])))
    assert seen.tags.count("script") == 2  # the data and the page's own
    assert name in seen.words
    assert name in seen.data["looks"]


def test_the_same_results_give_the_same_files(tmp_path: Path) -> None:
    for layer in ("full", "nce"):
        write_record(tmp_path, speed_record(layer, 10, 1.0))
    first, second = (write_report(tmp_path, tmp_path / name).parent for name in ("a", "b"))
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


@pytest.mark.parametrize("record", [train_record("full", 10, 5.0), speed_record("full", 10, 5.0)])
def test_one_lonely_record(tmp_path: Path, record: Record) -> None:
    write_record(tmp_path, record)
    assert "full" in write_report(tmp_path).read_text()


def test_a_layer_that_was_only_tuned_is_drawn(tmp_path: Path) -> None:
    write_record(tmp_path, train_record("full", 10, 5.0))
    for layer in ("full", "nce"):
        for rate in (0.1, 0.2):
            write_record(tmp_path, train_record(layer, 10, 6.0, rate, tuning=True, max_tokens=500))
    seen = Page(write_report(tmp_path).read_text())
    assert {"full", "nce"} == set(seen.data["looks"])


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(SoftmaxBenchError, match="it holds no"):
        load_results(tmp_path)
    with pytest.raises(SoftmaxBenchError, match="no results at"):
        write_report(tmp_path / "nowhere")


def test_no_room_for_the_report(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("softmax_bench.report.show.files.write_file", full_disk)
    with pytest.raises(SoftmaxBenchError, match="no disk space left"):
        write_report(store)
    monkeypatch.undo()
    (store.parent / "file").touch()
    with pytest.raises(SoftmaxBenchError, match=r"cannot write the report into .*Not a directory"):
        write_report(store, store.parent / "file" / "report")


def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    write_record(tmp_path, speed_record("full", 10, 1.0))
    code = (
        "import sys, pathlib, softmax_bench.report\n"
        "softmax_bench.report.write_report(pathlib.Path(sys.argv[1]))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_a_damaged_record_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_record(tmp_path, speed_record("full", 10, 1.0))
    (tmp_path / "bad.json").write_text("{")
    show_report(tmp_path, make_console())
    assert caplog.text.count("bad.json") == 1
