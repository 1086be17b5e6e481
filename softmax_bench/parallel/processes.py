"""Joining processes, and parting without one of them being aborted at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

LETTING_GO = 0.2
"""Seconds for gloo's threads to let go of tensors: they need microseconds, and Python's lock."""


@contextmanager
def joined_processes(backend: str = "cpu:gloo", **options: Any) -> Iterator[None]:
    """The default process group, for as long as a program needs it.

    ``torch.distributed.destroy_process_group`` alone does not end a group that ``DTensor`` has
    used, since torch 2.13 keeps references to it. A thread of gloo that lets go of the last tensor
    it moved while the interpreter ends aborts the process ("terminate called without an active
    exception", after all work is done): so wait for it before.

    Args:
        backend: As of ``torch.distributed.init_process_group``.
        options: Its other arguments; none are needed in a program started by ``torchrun``.
    """
    dist.init_process_group(backend, **options)
    try:
        yield
    finally:
        dist.destroy_process_group()
        time.sleep(LETTING_GO)
