"""Combining the normalisers of processes that each have some of the classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from softmax_bench.parallel.exchange import join_log2_sums


class Join:
    """Combines the normalisers of a block of tokens, and shares the targets' scores.

    Args:
        scores: (N,) score of each token's target; 0 on the processes that do not have it.
        mesh: The processes.
        besides: (N,) log2 of what enters each token's sum besides the scored rows.
    """

    def __init__(self, scores: Tensor, mesh: DeviceMesh, besides: Tensor | None = None) -> None:
        self._here = scores
        self._mesh = mesh
        self._besides = besides
        self.scores = torch.empty_like(scores)
        """(N,) score of each token's target."""

    def __call__(self, block: slice, log2_sum: Tensor) -> Tensor:
        """log2 of the sums of all processes (n,), from those of this one."""
        if self._besides is not None:
            log2_sum = torch.logaddexp2(log2_sum, self._besides[block])
        joined, self.scores[block] = join_log2_sums(log2_sum, self._here[block], self._mesh)
        return joined
