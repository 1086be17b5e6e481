"""Every statement of docs/theory.md names its test, and every test here is named."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_every_statement_of_the_page_has_its_test() -> None:
    page = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page))
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
    here = {
        (file.relative_to(ROOT).as_posix(), test)
        for file in HERE.glob("test_*.py")
        if file != Path(__file__)
        for test in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(here) > 10
    assert here <= named
