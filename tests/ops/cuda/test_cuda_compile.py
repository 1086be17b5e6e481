"""All kernels become machine code for GPUs that need not be here."""

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
    declared = set()
    for path in (ROOT / "softmax_bench/ops/cuda").glob("*.py"):
        text = path.read_text()
        names = [after.split("(")[0] for after in text.split("@triton.jit\ndef ")[1:]]
        # Others are parts of these.
        declared |= {f"softmax_bench.ops.cuda.{path.stem}.{n}" for n in names if f"{n}[" in text}
    assert declared <= set(done.stdout.split())
