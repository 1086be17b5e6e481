"""What the documentation shows works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ELSEWHERE = "how-to/add-a-layer.md"
"""Followed by tests/test_example_layer.py."""
_BLOCK = re.compile(r"^```(python|sh|toml)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def _cases() -> list[ParameterSet]:
    cases = []
    for page in PAGES:
        blocks = _BLOCK.findall(page.read_text(encoding="utf-8"))
        commands = any(language == "sh" for language, _ in blocks)
        marks = [pytest.mark.slow] if commands else []
        name = str(page.relative_to(ROOT / "docs"))
        if blocks and name != ELSEWHERE:
            cases.append(pytest.param(blocks, id=name, marks=marks))
    return cases


@pytest.mark.parametrize("blocks", _cases())
def test_snippets_and_commands_run_in_order(
    blocks: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    # The page of comparisons runs pytest, which is none of our own workers then.
    environment = {name: value for name, value in os.environ.items() if "XDIST" not in name} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "SOFTMAX_BENCH_CACHE": str(tmp_path / "cache"),
        "SOFTMAX_BENCH": str(ROOT),  # the checkout
    }
    for language, text in blocks:
        if language == "python":
            exec(compile(text, "page", "exec"), names)  # noqa: S102
        elif language == "sh":
            subprocess.run(["bash", "-euc", text], check=True, env=environment)
        elif file := re.match(r"# (\S+)\n", text):  # its name is the first line
            Path(file[1]).write_text(text, encoding="utf-8")
