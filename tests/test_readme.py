"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_run(snippet: str) -> None:
    exec(compile(snippet, "README.md", "exec"), {})  # noqa: S102


def test_the_first_block_is_the_two_commands() -> None:
    first = re.search(r"```\w*\n(.*?)```", README, flags=re.DOTALL)
    assert first is not None
    assert first[1].split("\n") == ["make demo", "make test", ""]


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_results_hold_records_tables_and_the_pictures_that_their_pages_show() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    stored = [ROOT / name for name in listed.stdout.splitlines()]
    assert {path.suffix for path in stored} <= {".json", ".md", ".csv", ".png", ".toml"}
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/**/*.md")]
    shown = {
        (page.parent / target).resolve()
        for page in pages
        for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert [path for path in stored if path.suffix == ".png" and path not in shown] == []


def test_every_result_is_in_the_table_of_results() -> None:
    table = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| \[`(\w+)`\]\(\1/README\.md\)", table, re.MULTILINE))
    assert listed == {path.parent.name for path in (ROOT / "results").glob("*/README.md")}


def test_every_picture_of_the_results_is_in_the_gallery() -> None:
    gallery = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    pictures = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("results/**/*.png")}
    assert pictures == set(re.findall(r"!\[[^]]+\]\(\.\./([^)]+)\)", gallery))
