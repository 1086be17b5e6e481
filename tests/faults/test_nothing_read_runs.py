"""In a whole study, in all of its processes, no pickle makes an object and no shell is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from softmax_bench.records.store import read_store
from tests.faults.harness import AUDITED, audit_of

pytestmark = pytest.mark.slow


def test_a_study_makes_no_code_of_data(uninterrupted: Path) -> None:
    noted = audit_of(uninterrupted).read_text().splitlines()
    watched = [line for line in noted if line.startswith("watching")]
    assert sum("softmax_bench.study.jobs.worker" in line for line in watched) == len(
        read_store(uninterrupted).records
    )
    assert sum("softmax_bench.cli run" in line for line in watched) == 1
    assert noted == watched


@pytest.mark.parametrize(
    "code",
    [
        "import pickle, fractions; pickle.loads(pickle.dumps(fractions.Fraction(1)))",
        "import os; os.system('true')",
        "import subprocess; subprocess.run('true', shell=True)",
    ],
)
def test_the_watch_sees_it(tmp_path: Path, code: str) -> None:
    log = tmp_path / "audit"
    environment = os.environ | {"PYTHONPATH": str(AUDITED), "SOFTMAX_BENCH_AUDIT": str(log)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert any(not line.startswith("watching") for line in log.read_text().splitlines())
