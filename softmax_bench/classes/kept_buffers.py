"""Modules whose buffers are facts about the classes, which no cast of a model may round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class KeptBuffers(nn.Module):
    """A module whose own buffers move between devices but keep their type and their contents.

    ``module.half()`` and ``module.to(torch.bfloat16)`` cast parameters only: noise probabilities
    and running averages stay as precise as they were made. ``module.to_empty(device=...)``, which
    fills a model that was built on ``device="meta"``, moves buffers instead of emptying them, so
    that tables outside the state dict survive; they never live on the meta device themselves.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        self._buffers.update(dict.fromkeys(kept))
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            device = fn(buffer.new_empty(0)).device
            self._buffers[name] = buffer if device.type == "meta" else buffer.to(device)
        return self
