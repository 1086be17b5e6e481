"""Modules whose buffers describe the classes and must not be rounded by casting a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class KeptBuffers(nn.Module):
    """A module whose own buffers move between devices but keep their dtype and contents.

    ``module.half()`` and ``module.to(torch.bfloat16)`` cast only parameters, so noise probabilities
    and running averages keep their precision. ``module.to_empty(device=...)``, which fills a model
    built on ``device="meta"``, moves buffers instead of emptying them, so that tables outside the
    state dict survive; they are never on the meta device themselves.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        self._buffers.update(dict.fromkeys(kept))
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            device = fn(buffer.new_empty(0)).device
            self._buffers[name] = buffer if device.type == "meta" else buffer.to(device)
        return self
