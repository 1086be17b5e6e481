"""The page in a real browser, as people use it: mouse, keyboard, telephone, dark, paper."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest

from softmax_bench.records.frames import load_results
from softmax_bench.records.record import Record
from softmax_bench.records.store import write_record
from softmax_bench.records.trial import trial_id
from softmax_bench.report.plots import chart_frame, charts
from softmax_bench.report.show.page import render_page
from softmax_bench.report.style import looks
from tests.records import fill_store, speed_record, train_record
from tests.report.test_style import contrast

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
_CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.skipif(_CHROMIUM is None, reason="there is no Chromium here"),
    pytest.mark.slow,
]

HOSTILE = (
    "<img src=http://127.0.0.1:9/x onerror=alert(1)></script><script>alert(2)</script>" + 60 * "x"
)


class Session:
    """One page, and everything that went wrong on it."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.wrong: list[str] = []
        self.page = browser.new_context(accept_downloads=True, **context).new_page()
        self.page.on("console", lambda message: self.wrong.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.goto(path.as_uri())

    def _asked(self, address: str) -> None:
        if not address.startswith(("file:", "blob:")):
            self.wrong.append(f"request: {address}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers at three sizes, and a fifth of hostile name trained on a hostile corpus."""
    folder = tmp_path_factory.mktemp("store")
    fill_store(folder)
    for size in (1000, 10_000):
        write_record(folder, speed_record(HOSTILE, size, 0.5))
        write_record(folder, train_record(HOSTILE, size, 150.0))
    for path in folder.glob("*.json"):
        text = path.read_text().replace('"ptb"', msgspec.json.encode(HOSTILE).decode())
        record = msgspec.json.decode(text, type=Record)
        path.unlink()
        write_record(folder, msgspec.structs.replace(record, id=trial_id(record.trial)))
    results = load_results(folder)
    drawn = charts(results)
    page = folder / "index.html"
    page.write_text(render_page(results, drawn, looks(results.speed["layer"])))
    for chart in drawn:
        chart_frame(chart).to_csv(folder / f"{chart.name}.csv", index=False)
    return page


@pytest.fixture(params=["desktop", "telephone"])
def opened(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Session]:
    wide = request.param == "desktop"
    size = {"width": 1280, "height": 900} if wide else {"width": 390, "height": 844}
    session = Session(browser, report, viewport=size, has_touch=not wide)
    yield session
    session.page.context.close()
    assert session.wrong == []


def test_nothing_is_cut_off(opened: Session) -> None:
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("figure .plot svg").count() == page.locator("figure").count()
    cut = page.evaluate(
        """(hostile) => [...document.querySelectorAll("body *")].filter((one) =>
            getComputedStyle(one).overflowX !== "visible" && one.scrollWidth > one.clientWidth + 1
            && !getComputedStyle(one).backgroundImage.includes("gradient")
            && !one.textContent.includes(hostile)).map((one) => one.outerHTML)""",
        HOSTILE,
    )
    assert cut == []  # but for what shows by a shadow that it scrolls, and names without end
    outside = page.evaluate(
        """() => [...document.querySelectorAll(".plot svg text")].filter((text) => {
            const box = text.getBBox(), view = text.ownerSVGElement.viewBox.baseVal;
            return box.x < -1 || box.x + box.width > view.width + 1 ||
                box.y < -1 || box.y + box.height > view.height + 1;
        }).map((text) => text.textContent)"""
    )
    assert outside == []
    overlapping = page.evaluate(
        """() => [...document.querySelectorAll(".plot svg")].flatMap((plot) => {
            const boxes = [...plot.querySelectorAll("text")].map((text) => text.getBBox());
            const apart = (a, b) => a.x + a.width - 1 < b.x || a.y + a.height - 4 < b.y;
            const words = [...plot.querySelectorAll("text")].map((text) => text.textContent);
            return boxes.flatMap((a, n) => boxes.flatMap((b, m) =>
                n < m && !apart(a, b) && !apart(b, a) ? [[words[n], words[m]]] : []));
        })"""
    )
    assert overlapping == []


def test_hostile_names_are_shown_as_text(opened: Session) -> None:
    page = opened.page
    assert page.locator("img").count() == 0
    assert page.locator(f'#results tr[data-layer="{HOSTILE}"]').count() == 2
    assert HOSTILE in page.locator("#results").inner_text()
    assert HOSTILE in page.locator("code").first.inner_text().replace("\n", "")


def test_sorting_and_filtering(opened: Session) -> None:
    page = opened.page
    rows = page.locator("#results tbody tr:visible")
    assert rows.count() == 14
    page.select_option("#size", "10000")
    assert rows.count() == 5
    page.fill("#search", "SAMPLED")
    assert rows.count() == 1
    assert page.locator("#count").inner_text() == "1 of 14 rows"
    page.fill("#search", "")
    page.locator("#results thead button", has_text="step ms").click()
    assert rows.first.get_attribute("data-layer") == "hierarchical"
    page.locator("#results thead button", has_text="step ms").press("Enter")
    assert page.locator("#results th[aria-sort]").get_attribute("aria-sort") == "descending"
    assert rows.first.get_attribute("data-layer") == HOSTILE
    assert page.locator("#results th:visible").count() < 12
    page.check("#wide")
    assert page.locator("#results th:visible").count() > 15


def test_layers_are_switched_everywhere(opened: Session) -> None:
    page = opened.page
    if not page.locator("#chips").is_visible():
        page.locator("#toolbar summary").click()
    before = page.locator("#step-time .series").count()
    chip = page.locator('.chip[data-layer="hierarchical"]')
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert page.locator("#step-time .series").count() < before
    assert page.locator('#results tr[data-layer="hierarchical"]:visible').count() == 0
    page.locator("#chips button", has_text="all").last.click()
    assert page.locator("#step-time .series").count() == before


def test_axes_and_sizes(opened: Session) -> None:
    page = opened.page
    line = page.locator("#step-time .line").first
    before = line.get_attribute("d")
    page.locator("#step-time .controls button", has_text="log y").click()
    assert line.get_attribute("d") != before
    page.select_option("#price select", "V = 1,000")
    assert page.locator("#phases select").input_value() == "V = 1,000"  # all go along
    page.locator("#phases .controls button", has_text="in ms").click()
    assert "[ms]" in page.locator("#phases .plot").inner_text()


def test_values_by_pointer_and_by_keyboard(opened: Session) -> None:
    page = opened.page
    plot, tip = page.locator("#step-time .plot"), page.locator("#step-time .tip")
    assert not tip.is_visible()
    plot.locator(".marker").first.hover()
    assert "training step of the layer [ms]" in tip.inner_text()
    page.mouse.move(0, 0)
    plot.focus()
    page.keyboard.press("ArrowRight")
    first = tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() != first
    page.keyboard.press("Escape")
    assert not tip.is_visible()


@pytest.mark.parametrize("kind", ["csv", "svg", "png"])
def test_downloads(opened: Session, kind: str, report: Path, tmp_path: Path) -> None:
    with opened.page.expect_download() as waiting:
        opened.page.locator("#step-time .controls button", has_text=kind.upper()).click()
    assert waiting.value.suggested_filename == f"step-time.{kind}"
    got = tmp_path / "got"
    waiting.value.save_as(got)
    if kind == "csv":
        stored, saved = (pd.read_csv(path) for path in (report.parent / "step-time.csv", got))
        pd.testing.assert_frame_equal(stored, saved, check_dtype=False, rtol=1e-5)
    else:
        assert got.read_bytes().startswith(b"<svg" if kind == "svg" else b"\x89PNG")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_written_can_be_read(browser: Any, report: Path, scheme: str) -> None:
    """A contrast of 4.5 (WCAG 2, AA), wherever something is written."""
    session = Session(browser, report, color_scheme=scheme)
    pairs = session.page.evaluate(
        """() => {
            const pairs = new Set();
            const back = (one) => {
                for (; one; one = one.parentElement) {
                    const colour = getComputedStyle(one).backgroundColor;
                    if (colour !== "rgba(0, 0, 0, 0)") return colour;
                }
                return "rgb(255, 255, 255)";
            };
            for (const one of document.querySelectorAll("body *")) {
                const texts = [...one.childNodes].filter((node) => node.nodeType === 3);
                const own = texts.some((node) => node.data.trim());
                if (!own || !one.getClientRects().length) continue;
                const style = getComputedStyle(one);
                const ink = one.namespaceURI.endsWith("svg") ? style.fill : style.color;
                pairs.add(`${ink}|${back(one)}`);
            }
            return [...pairs].map((pair) => pair.split("|"));
        }"""
    )
    assert len(pairs) >= 4
    for ink, paper in pairs:
        assert contrast(_hex(ink), _hex(paper)) >= 4.5, (ink, paper)
    session.page.context.close()


def _hex(colour: str) -> str:
    assert colour.startswith("rgb("), colour
    return "#" + "".join(f"{int(part):02x}" for part in colour[4:-1].split(","))


def test_theme_is_switched_and_kept(opened: Session) -> None:
    page = opened.page
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    for _ in range(2):  # auto, light, dark
        page.locator("#theme").click()
    assert page.evaluate(paper) != light
    page.reload()
    assert page.locator("#theme").inner_text() == "theme: dark"
    assert page.evaluate(paper) != light


def test_everything_has_a_name_and_can_be_reached(opened: Session) -> None:
    page = opened.page
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, [tabindex]")].filter((one) =>
            !(one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.length))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Plots"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    assert page.locator("h1").count() == 1


def test_paper(browser: Any, report: Path, tmp_path: Path) -> None:
    session = Session(browser, report, color_scheme="dark")
    session.page.emulate_media(media="print", color_scheme="dark")
    paper = session.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    assert not session.page.locator(".controls").first.is_visible()
    session.page.pdf(path=tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    session.page.context.close()
    assert session.wrong == []
