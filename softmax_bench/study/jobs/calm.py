"""Whether others are busy on this machine, and how threads are to wait for each other then.

Threads of one product meet at its end. By default the first to arrive spins there for some
milliseconds, which is quickest as long as each has a core of its own. Where somebody else has taken
a core, it spins in place of the thread that it waits for, and a step of 5 ms takes up to 400. A
thread that waits passively gives its core away; a quiet machine runs small steps up to 1.7 times as
long so. ``python -m benchmarks.busy`` measures both.
"""

from __future__ import annotations

import os
import time

import psutil

BUSY = 5.0
"""Per cent of the processor, over all cores, above which the machine is not calm: more than that
beside a timing marks it as disturbed."""
_LOOK_SECONDS = 0.3
_WAITING_LOOK_SECONDS = 1.0
_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
PASSIVE = "passive"


def is_calm() -> bool:
    """Whether the processor is idle while this process sleeps for a moment."""
    return psutil.cpu_percent(_LOOK_SECONDS) <= BUSY


def wait_passively(environment: dict[str, str]) -> dict[str, str]:
    """An environment in which OpenMP's threads give their cores away while they wait.

    It has to be set before torch is imported. Where somebody has chosen another way, that holds.
    """
    if any(name in environment for name in _CHOICES):
        return environment
    return environment | {"OMP_WAIT_POLICY": PASSIVE}


def prepare_threads() -> bool:
    """Let this process, which is to time something, wait as the machine's state asks for.

    Returns:
        Whether the machine is calm.
    """
    calm = is_calm()
    if not calm:
        os.environ.update(wait_passively(dict(os.environ)))
    return calm


class CalmWatch:
    """Looks again and again whether the machine has calmed down, and keeps nobody waiting."""

    def __init__(self) -> None:
        psutil.cpu_percent(None)
        self._looked = time.monotonic()

    def calm(self) -> bool:
        """Whether it was calm since the last look; False where that was only just now."""
        if time.monotonic() - self._looked < _WAITING_LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        return psutil.cpu_percent(None) <= BUSY
