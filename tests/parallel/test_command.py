from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from softmax_bench.parallel.__main__ import main

RUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
SMALL = ["--vocab-size", "500", "--hidden-size", "16", "--steps", "10"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--layer", "hierarchical"],
        ["--layer", "nce", "--divide", "vocabulary", "--optimizer", "adam", "--dtype", "float64"],
    ],
)
def test_training_by_torchrun_is_that_of_one_process(options: list[str]) -> None:
    done = subprocess.run(
        [*RUN, "-m", "softmax_bench.parallel", *SMALL, *options],
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"largest difference of.*?([\d.]+e[+-]\d+)", done.stdout)
    apart = [float(number) for number in found]
    assert len(apart) == 2, done.stdout
    assert max(apart) < 1e-5


def test_without_torchrun_the_command_says_how_to_start_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "torchrun --nproc-per-node 2" in capsys.readouterr().err
