"""Two processes that run all checks of a module one after another: torch is imported once each.

``python -m tests.parallel.processes FOLDER RANK`` joins the others and writes what became of each
check to a file in the folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

PROCESSES = 2
CHECKS: dict[str, Callable[[], None]] = {}
"""By name, in the order in which they are run."""
THE_END = "the end of the processes"


def check(function: Callable[[], None]) -> Callable[[], None]:
    """Run a function on all processes."""
    CHECKS[function.__name__] = function
    return function


def run_checks(folder: Path) -> dict[str, str]:
    """What went wrong in each check and at the end, ``""`` where nothing did.

    Checks after one that failed do not run.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::UserWarning"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.parallel.processes", str(folder), str(rank)],
            env=environment,
        )
        for rank in range(PROCESSES)
    ]
    try:
        for process in started:
            process.wait(timeout=300)
    finally:
        for process in started:
            process.kill()
    outcomes: dict[str, str] = {}
    for file in sorted(folder.glob("*.json")):
        for name, wrong in json.loads(file.read_text()).items():
            outcomes[name] = outcomes.get(name, "") + wrong
    codes = [process.returncode for process in started]
    outcomes[THE_END] = f"exit statuses {codes}" if any(codes) else ""
    return outcomes


def main(folder: Path, rank: int) -> None:
    """Run all checks as one of the processes."""
    from softmax_bench.parallel import joined_processes

    with joined_processes(
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=PROCESSES,
        timeout=timedelta(seconds=60),
    ):
        run_in_turn(folder, rank)


def run_in_turn(folder: Path, rank: int) -> None:
    """Run all checks, and write what became of them."""
    import torch

    import tests.parallel.checks
    import tests.parallel.others
    import tests.parallel.training

    outcomes: dict[str, str] = {}
    for name, function in tests.parallel.processes.CHECKS.items():
        torch.manual_seed(0)
        try:
            function()
            outcomes[name] = ""
        except Exception:
            outcomes[name] = f"process {rank}: {traceback.format_exc()}"
            break
        finally:
            (folder / f"{rank}.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
