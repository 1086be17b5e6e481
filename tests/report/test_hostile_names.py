"""Whatever texts records hold, the page has the same elements: names are text and nothing else."""

from __future__ import annotations

import shlex
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from softmax_bench.records.frames import Results, frames
from softmax_bench.records.record import Record
from softmax_bench.report.plots import charts
from softmax_bench.report.show.command import commands
from softmax_bench.report.show.page import render_page
from softmax_bench.report.style import looks
from softmax_bench.report.tables.shown import markdown_table
from softmax_bench.report.tables.summary import summary_table
from tests.records import ngram_record, speed_record, train_record

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></textarea><iframe src=//x>",
    "--><svg onload=alert(1)>]]>",
    "<a href=javascript:alert(1)>",
    "{{ 7 * 7 }}{% include 'x' %}",
    "&lt;b&gt;\u2028<b>|\n| $(reboot) `reboot`; reboot",
]
FIXED = ("id", "kind", "started", "corpus_sha256", "stopped")
"""Texts that are made by softmax-bench or have few values."""


class Elements(HTMLParser):
    """Counts elements with the names of their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag, tuple(name for name, _ in attrs)] += 1


def with_texts(value: Any, text: str, name: str = "") -> Any:
    """A record as JSON, with ``text`` at the end of each text that is free."""
    if isinstance(value, dict):
        return {key: with_texts(item, text, key) for key, item in value.items()}
    if isinstance(value, list):
        return [with_texts(item, text, name) for item in value]
    return value + text if isinstance(value, str) and name not in FIXED else value


def results_with(text: str) -> Results:
    records: list[Record] = []
    for size in (100, 1000):
        for record in (
            train_record("full", size, 90.0),
            train_record("nce", size, 95.0),
            speed_record("full", size, 2.0),
            speed_record("nce", size, 1.0),
            ngram_record(size, 99.0),
        ):
            changed = with_texts(msgspec.to_builtins(record), text)
            records.append(msgspec.convert(changed, type(record)))
    return frames(records)


def page_with(text: str) -> str:
    results = results_with(text)
    return render_page(results, charts(results), looks(summary_table(results)["layer"]))


@pytest.fixture(scope="module")
def plain() -> Counter[tuple[str, tuple[str, ...]]]:
    return Elements(page_with("x")).found


@pytest.mark.parametrize("text", HOSTILE)
def test_the_page_has_the_same_elements(
    text: str, plain: Counter[tuple[str, tuple[str, ...]]]
) -> None:
    assert Elements(page_with(text)).found == plain


@pytest.mark.parametrize("text", HOSTILE)
def test_a_markdown_table_has_the_same_cells(text: str) -> None:
    lines = markdown_table(summary_table(results_with(text))).splitlines()
    usual = markdown_table(summary_table(results_with("x"))).splitlines()
    assert [line.replace("\\|", "").count("|") for line in lines] == [
        line.count("|") for line in usual
    ]
    assert "<" not in "".join(lines)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_command_to_copy_runs_nothing_else(text: str) -> None:
    def words(of: str) -> list[int]:
        return [len(shlex.split(line)) for line in commands(results_with(of))]

    assert words(text) == words("x")
