"""Whether other processes are busy on this machine, and how threads should then wait.

The threads of a product meet at its end. By default, the first to arrive spins there for some
milliseconds, which is fastest as long as each has its own core. If another process has taken a
core, it spins in place of the thread it waits for, and a step of 5 ms takes up to 400. A thread
that waits passively gives up its core; on a quiet machine this makes small steps up to 1.7 times
slower. ``python -m benchmarks.busy`` measures both.
"""

from __future__ import annotations

import os
import time

import psutil

BUSY = 5.0
"""Per cent of the processor, over all cores, above which the machine is not calm; the same load
marks a timing as disturbed.
"""
_LOOK_SECONDS = 0.3
_WAITING_LOOK_SECONDS = 1.0
_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
PASSIVE = "passive"


def is_calm() -> bool:
    """Whether the processor is idle while this process sleeps for a moment."""
    return psutil.cpu_percent(_LOOK_SECONDS) <= BUSY


def wait_passively(environment: dict[str, str]) -> dict[str, str]:
    """An environment in which OpenMP's threads give up their cores while they wait.

    It must be set before torch is imported. A choice already in the environment takes precedence.
    """
    if any(name in environment for name in _CHOICES):
        return environment
    return environment | {"OMP_WAIT_POLICY": PASSIVE}


def prepare_threads() -> bool:
    """Let this process, which will time something, wait as the state of the machine requires.

    Returns:
        Whether the machine is calm.
    """
    calm = is_calm()
    if not calm:
        os.environ.update(wait_passively(dict(os.environ)))
    return calm


class CalmWatch:
    """Checks repeatedly, without blocking, whether the machine has become calm."""

    def __init__(self) -> None:
        psutil.cpu_percent(None)
        self._looked = time.monotonic()

    def calm(self) -> bool:
        """Whether it has been calm since the last call; False right after one."""
        if time.monotonic() - self._looked < _WAITING_LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        return psutil.cpu_percent(None) <= BUSY
