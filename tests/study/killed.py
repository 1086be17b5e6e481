"""A study in a process of its own that is killed while it has a job in work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
    from pathlib import Path
    from softmax_bench.study.executors.{module} import {executor}
    from tests.study.jobs import WORKER, train_job

    with {executor}(Path({store!r}), {options}) as executor:
        executor.submit(train_job({layer!r}))
        while not executor.wait(0.1):
            pass
        print("runs", flush=True)
        executor.wait(600)
"""


@contextmanager
def killed_study(
    store: Path, executor: str, module: str, options: str, layer: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The process when the job has begun to tell; killed at the end."""
    program = textwrap.dedent(PROGRAM).format(
        store=str(store), executor=executor, module=module, options=options, layer=layer
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as study:  # fmt: skip
        assert study.stdout is not None
        assert study.stdout.readline() == b"runs\n"
        yield study
        study.send_signal(signal.SIGKILL)
