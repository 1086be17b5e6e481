"""Found first by every Python that a test starts: notes what could make code out of data."""

from __future__ import annotations

import os
import sys
from typing import Any

WATCHED = ("pickle.find_class", "os.system", "pty.spawn")


def _note(what: str) -> None:
    with open(os.environ["SOFTMAX_BENCH_AUDIT"], "a") as file:  # noqa: PTH123 - imports nothing
        file.write(f"{what}\n")


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in WATCHED:
        _note(f"{event} {arguments!r}")
    elif event == "subprocess.Popen":
        program, words = arguments[:2]
        if str(program).endswith("sh") or isinstance(words, str):
            _note(f"shell {words!r}")


if "SOFTMAX_BENCH_AUDIT" in os.environ:
    sys.addaudithook(_hook)
    _note(f"watching {' '.join(sys.orig_argv[1:4])}")
