"""Gradients that a forward pass has already made, waiting for the backward to hand them out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Held:
    """Gradients of a scalar loss, handed out once."""

    def __init__(self, gradients: Sequence[Tensor | None]) -> None:
        self._gradients: tuple[Tensor | None, ...] | None = tuple(gradients)

    def times(self, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients times the loss's own gradient.

        Raises:
            RuntimeError: They were handed out before. They are not kept, because torch must be
                able to use them as the parameters' ``.grad`` without a copy.
        """
        if self._gradients is None:
            raise RuntimeError(
                "this loss made its gradients in the forward pass and has handed them out: call "
                "forward again before a second backward (retain_graph has no effect here)"
            )
        gradients, self._gradients = self._gradients, None
        # On a CPU, looking at the number is cheaper than a pass over V x H; on an accelerator it
        # would stop the queue.
        if upstream.device.type == "cpu" and float(upstream) == 1.0:
            return gradients
        return tuple(None if g is None else _scaled(g, upstream) for g in gradients)


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    if gradient.is_sparse:
        values = gradient.values() * factor.to(gradient.dtype)
        return torch.sparse_coo_tensor(
            gradient.indices(), values, gradient.shape, is_coalesced=True, check_invariants=False
        )
    return gradient.mul_(factor.to(gradient.dtype))
