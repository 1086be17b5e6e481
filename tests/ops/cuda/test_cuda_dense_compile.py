"""The dense kernels become machine code for GPUs that need not be here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_kernels_compile(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: whether kernels are interpreted is decided once a process."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    command = [sys.executable, "-m", "tests.ops.cuda.compile_dense", target]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "compiled\n"
