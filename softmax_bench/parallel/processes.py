"""Joining processes, and parting so that no thread of theirs is left."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

# Its functions keep the default group of the moment of this import, and DTensor imports it when it
# is first used: imported here, before there is a group, it keeps none.
import torch.distributed.nn.functional  # noqa: F401
from torch.distributed.device_mesh import DeviceMesh

from softmax_bench.errors import SoftmaxBenchError


@contextmanager
def joined_processes(backend: str = "cpu:gloo", **options: Any) -> Iterator[None]:
    """The default process group, for as long as a program needs it.

    ``torch.distributed.destroy_process_group`` alone does not end a group that ``DTensor`` has
    used: its caches keep every mesh, and a mesh keeps its group (torch 2.13). Gloo's threads then
    run on, and one that lets go of a tensor while the interpreter ends aborts the process
    ("terminate called without an active exception", after all work is done). Here the last
    reference is dropped, which joins the threads. No mesh can be used afterwards.

    Args:
        backend: As of ``torch.distributed.init_process_group``.
        options: Its other arguments; none are needed in a program started by ``torchrun``.

    Raises:
        SoftmaxBenchError: There are no options, and the program was not started by ``torchrun``.
    """
    if not options and "RANK" not in os.environ:
        raise SoftmaxBenchError(
            "start the program by torchrun, which starts it once for each process:\n"
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
                getattr(thing, "_pg_registry", {}).clear()  # older torch keeps names alone
