"""Joining processes, and leaving the group without leftover threads."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

# Its functions keep the default group that exists when it is imported, and DTensor imports it on
# first use. Imported here, before there is a group, it keeps none.
import torch.distributed.nn.functional  # noqa: F401
from torch.distributed.device_mesh import DeviceMesh

from softmax_bench.errors import SoftmaxBenchError


@contextmanager
def joined_processes(backend: str = "cpu:gloo", **options: Any) -> Iterator[None]:
    """The default process group, for as long as a program needs it.

    ``torch.distributed.destroy_process_group`` alone does not end a group that ``DTensor`` has
    used, because its caches keep every mesh, and a mesh keeps its group (torch 2.13). Gloo's
    threads then keep running, and one that releases a tensor while the interpreter exits aborts the
    process ("terminate called without an active exception", after all work is done). This drops the
    last reference, which joins the threads. No mesh can be used afterwards.

    Args:
        backend: As for ``torch.distributed.init_process_group``.
        options: Its other arguments; a program started by ``torchrun`` needs none.

    Raises:
        SoftmaxBenchError: There are no options, and the program was not started by ``torchrun``.
    """
    if not options and "RANK" not in os.environ:
        raise SoftmaxBenchError(
            "start the program with torchrun, which starts it once per process:\n"
            "    torchrun --nproc-per-node 2 PROGRAM.py\n"
            "    torchrun --nproc-per-node 2 -m MODULE"
        )
    dist.init_process_group(backend, **options)
    try:
        yield
    finally:
        dist.destroy_process_group()
        for thing in gc.get_objects():
            if type(thing) is DeviceMesh:
                getattr(thing, "_pg_registry", {}).clear()  # older torch keeps names only
