"""The kernels of whole training steps become machine code for GPUs that need not be here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_all_that_is_launched_compiles(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    command = [sys.executable, "-m", "tests.ops.cuda.compile_launched", target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    declared = {
        f"softmax_bench.ops.cuda.{path.stem}.{after.split('(')[0]}"
        for path in (ROOT / "softmax_bench/ops/cuda").glob("*.py")
        if path.stem != "score_rows"
        for after in path.read_text().split("@triton.jit\ndef ")[1:]
    }
    assert declared <= set(done.stdout.split())
