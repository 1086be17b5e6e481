"""The site in a real browser, on a desk and on a telephone: ``make docs`` runs this.

Where there is no Chromium or no site, there is nothing to look at.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

SITE = Path(os.environ.get("SOFTMAX_BENCH_SITE", "no/site"))
_CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    _CHROMIUM is None or not SITE.exists(), reason="there is no Chromium here, or no site"
)

CUT_OFF = """() => {
    const found = [];
    if (document.documentElement.scrollWidth > innerWidth) found.push("the page itself");
    const scrolls = (one) => one && (getComputedStyle(one).backgroundImage.includes("gradient")
        ? one : scrolls(one.parentElement));
    for (const one of document.querySelectorAll(".content *")) {
        const box = one.getBoundingClientRect();
        if (!box.width || scrolls(one) || one.closest(".visually-hidden")) continue;
        const overflow = getComputedStyle(one).overflowX;
        const hidden = overflow !== "visible" && one.scrollWidth > one.clientWidth + 1;
        if (box.right > innerWidth + 1 || hidden)
            found.push(one.tagName + ": " + one.textContent.trim().slice(0, 50));
    }
    return found;
}"""
"""What a reader cannot see; what scrolls shows by a shadow that it does."""


@pytest.mark.parametrize("width", [390, 1100, 1280, 1400])
def test_nothing_is_cut_off(width: int) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    cut: dict[str, list[str]] = {}
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 844})
        for path in sorted(SITE.rglob("*.html")):
            if "_modules" not in path.parts:
                page.goto(path.resolve().as_uri())
                cut[str(path.relative_to(SITE))] = page.evaluate(CUT_OFF)
        browser.close()
    assert {name: found for name, found in cut.items() if found} == {}
