"""One reused scratch buffer a thread.

A fresh buffer of hundreds of megabytes is handed out by the operating system a page at a time,
zero-filled, at the first touch: on a CPU that costs as much as the arithmetic done in it. The
blocks of scores live here instead, and are overwritten by the next step.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

_local = threading.local()


def workspace(numel: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised flat buffer of ``numel`` elements, valid until the next call.

    On CUDA torch's caching allocator already reuses memory, so nothing is kept here.
    """
    if device.type != "cpu":
        return torch.empty(numel, dtype=dtype, device=device)
    buffers: dict[torch.dtype, Tensor] = _local.__dict__.setdefault("buffers", {})
    held = buffers.get(dtype)
    if held is None or held.numel() < numel:
        buffers.pop(dtype, None)
        held = None  # given back before the larger one is made
        with torch.inference_mode(False):  # or no later training step might write to it
            held = buffers[dtype] = torch.empty(numel, dtype=dtype, device=device)
    return held[:numel]


def release_workspace() -> None:
    """Give this thread's scratch memory back."""
    _local.__dict__.clear()
