"""Exponentials of scores, tile by tile, relative to the normaliser so far.

They are powers of two of scores whose operands were scaled by log2(e), because torch's ``exp2``
takes a third of the time of its ``exp``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG2_E = math.log2(math.e)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums: float32 for half-precision inputs."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


class Exponentials:
    """Computes ``2^(s_nj - reference_n)`` for tiles of classes j, and ``log2 sum_j 2^s_nj``.

    A safe softmax first finds the maximum of each tile (Milakov & Gimelshein 2018). Here, a tile's
    reference is the normaliser of all tiles before it. Since that is known before the scores are
    computed, it is added through the product's bias, which saves two passes over the scores. This
    only fails if a tile exceeds everything before it by more than a number can hold. Then
    :attr:`overflowed` is set, and the caller starts again with ``careful``.

    Args:
        hidden: (N, H) hidden states.
        weight: (V, H) rows.
        bias: (V,) offsets.
        first: (N,) a score of each token that is in its sum from the start.
        excluded: (N,) a row that does not enter a token's sum, -1 for none.
        careful: Whether to find each tile's maximum.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        first: Tensor | None,
        excluded: Tensor | None,
        *,
        careful: bool,
    ) -> None:
        self._hidden = hidden * LOG2_E
        self._weight = weight
        self._bias = None if bias is None else bias * LOG2_E
        self._excluded = excluded
        self._careful = careful
        dtype = accumulator(hidden.dtype)
        # The lowest finite number instead of -inf: a row that is all -inf then gives 2^-inf = 0 and
        # not inf - inf.
        self._lowest = torch.finfo(dtype).min
        self.log2_sum: Tensor | None = None if first is None else first.to(dtype) * LOG2_E
        """(N,) log2 of the sum over all tiles so far."""
        self.reference = hidden.new_full(hidden.shape[:1], self._lowest, dtype=dtype)
        """(N,) the reference of the last tile's scores."""

    def write(self, tile: slice, out: Tensor) -> Tensor:
        """Write the exponentials of a tile of classes into ``out`` (N, tile).

        Returns:
            The factor that converts sums relative to the previous reference to this one.
        """
        before = self.reference
        if self._careful or self.log2_sum is None:
            self._write_by_maximum(tile, out)
        else:
            self._write_by_sum(self.log2_sum, tile, out)
        # It sums in float32 internally; if asked for a float32 result, torch would first make a
        # copy.
        added = out.sum(1).to(before.dtype)
        if self.log2_sum is not None:
            added += (self.log2_sum - self.reference).exp2_()
        self.log2_sum = (self.reference + added.log2_()).clamp_(min=self._lowest)
        return (before - self.reference).exp2_()

    def _write_by_maximum(self, tile: slice, out: Tensor) -> None:
        if self._bias is None:
            torch.mm(self._hidden, self._weight[tile].t(), out=out)
        else:
            torch.addmm(self._bias[tile], self._hidden, self._weight[tile].t(), out=out)
        self._exclude_hits(tile, out)
        maximum = out.amax(1).to(self.reference.dtype)
        lower = self.reference if self.log2_sum is None else self.log2_sum
        self.reference = torch.maximum(maximum, lower).to(out.dtype).to(maximum.dtype)
        out.sub_(self.reference.to(out.dtype).unsqueeze(1)).exp2_()

    def _write_by_sum(self, log2_sum: Tensor, tile: slice, out: Tensor) -> None:
        negative = -log2_sum.to(out.dtype).unsqueeze(1)
        self.reference = -negative.squeeze(1).to(log2_sum.dtype)
        if self._bias is None:
            out.copy_(negative.expand_as(out))
        else:
            torch.add(self._bias[tile], negative, out=out)
        out.addmm_(self._hidden, self._weight[tile].t())
        self._exclude_hits(tile, out)
        out.exp2_()

    def _exclude_hits(self, tile: slice, scores: Tensor) -> None:
        if self._excluded is None:
            return
        column = self._excluded - tile.start
        inside = (column >= 0) & (column < scores.shape[1])
        column = column.clamp(0, scores.shape[1] - 1).unsqueeze(1)
        kept = scores.gather(1, column)
        scores.scatter_(1, column, kept.masked_fill(inside.unsqueeze(1), -math.inf))

    @property
    def overflowed(self) -> bool:
        """Whether to start again, because a sum is not finite and might be with more care."""
        return not self._careful and not bool(self.total.isfinite().all())

    @property
    def total(self) -> Tensor:
        """(N,) ``log2 sum_j 2^s_nj`` over all tiles; the lowest number if there were none."""
        return self.reference if self.log2_sum is None else self.log2_sum


def careful_at_once(device: torch.device) -> bool:
    """Whether to find maxima from the start, since asking an accelerator would stall its queue."""
    return device.type != "cpu"
