"""The rehearsal of ``python -m benchmarks.gpu``, which needs no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import main

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--small"]


@pytest.mark.slow
def test_a_rehearsal_checks_layers_and_is_not_run_again(tmp_path: Path) -> None:
    command = [*COMMAND, "--out", str(tmp_path), "--parts", "checks,dense"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert first.returncode == 0, first.stderr[-2000:]
    checked = sorted(tmp_path.glob("records/checks/*.json"))
    assert checked
    assert all(json.loads(path.read_text())["right"] for path in checked)
    assert "## Primitives and layers against float64" in (tmp_path / "README.md").read_text()
    again = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert again.returncode == 0
    assert "[checks" not in again.stderr


def test_figures_of_a_cpu_do_not_go_where_those_of_a_gpu_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", COMMAND[2:])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "results/gpu is for GPU results only" in capsys.readouterr().err
