"""One reused scratch buffer per thread.

The operating system provides a fresh buffer of hundreds of megabytes page by page, filled with
zeros at the first access, which on a CPU costs as much as the arithmetic in it. Blocks of scores
are kept here instead, and overwritten by the next step.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

_local = threading.local()


def workspace(numel: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised flat buffer of ``numel`` elements, valid until the next call.

    On CUDA, torch's caching allocator already reuses memory, so nothing is kept here.
    """
    if device.type != "cpu":
        return torch.empty(numel, dtype=dtype, device=device)
    buffers: dict[torch.dtype, Tensor] = _local.__dict__.setdefault("buffers", {})
    held = buffers.get(dtype)
    if held is None or held.numel() < numel:
        buffers.pop(dtype, None)
        held = None  # release it before allocating the larger one
        with torch.inference_mode(False):  # or later training steps might fail to write to it
            held = buffers[dtype] = torch.empty(numel, dtype=dtype, device=device)
    return held[:numel]


def release_workspace() -> None:
    """Release this thread's scratch memory."""
    _local.__dict__.clear()
