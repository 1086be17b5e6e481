"""Sampled softmax whose proposal is a quantised copy of the softmax itself."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from softmax_bench.errors import check_positive
from softmax_bench.layers.options import CommonOptions
from softmax_bench.layers.proposals.base import ProposalSoftmax, draw_columns, log_share

_ITERATIONS = 8
_TRAINING_ROWS = 20_000


class MIDXSoftmax(ProposalSoftmax):
    """``q(j|h)`` in proportion to ``exp(h . (c_k1(j) + c_k2(j)) + b_j)``.

    Rows are quantised to the sum of two codewords; the second encodes the residual of the first.
    All classes of a cell (k1, k2) differ only by their bias, so a draw first takes one of K^2 cells
    by its score, then a class of the cell by its bias (inverted multi-index; Chen et al. 2021).

    Args:
        num_samples: Number of draws for each token.
        codewords: Size K of each of the two codebooks.
        refresh: Training steps between snapshots; each runs k-means on the rows.
        **common: As for every output layer.
    """

    name = "midx"
    scores = "k classes per token, near its hidden state"
    source = "Chen et al. 2021"
    good_for = "few samples, nearly as good as draws from the softmax itself"
    step_flops = "6 N (k + 1) H + 4 N K H"

    _first: Tensor
    _second: Tensor
    _cell: Tensor
    _members: Tensor
    _running: Tensor
    _log_mass: Tensor
    _cell_mass: Tensor
    _below: Tensor
    _ends: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 32,
        codewords: int = 32,
        refresh: int = 200,
        **common: Unpack[CommonOptions],
    ) -> None:
        check_positive("codewords", codewords)
        super().__init__(
            in_features, num_classes, num_samples=num_samples, refresh=refresh, **common
        )
        self.codewords = min(codewords, num_classes)
        cells = self.codewords**2
        for name in ("_first", "_second"):
            self._keep(name, (self.codewords, in_features))
        for name in ("_cell", "_members"):
            self._keep(name, (num_classes,), torch.int64)
        for name in ("_running", "_log_mass"):
            self._keep(name, (num_classes,), torch.float64)
        for name in ("_below", "_cell_mass"):
            self._keep(name, (cells,), torch.float64)
        self._keep("_ends", (cells,), torch.int64)

    def _snapshot(self, rows: Tensor) -> None:
        first_codes, first = quantise(rows, self.codewords)
        second_codes, second = quantise(rows - first_codes[first], self.codewords)
        self._first.copy_(first_codes)
        self._second.copy_(second_codes)
        cell = self._cell.copy_(first * self.codewords + second)
        self._log_mass.copy_(self._log_prior() if self.bias is not None else torch.zeros(()))
        # The members of a cell are adjacent, so one search in the cumulative masses finds a member.
        self._members.copy_(cell.argsort(stable=True))
        self._running.copy_(self._log_mass[self._members].exp().cumsum(0))
        self._ends.copy_(count_of(cell, len(self._ends)).cumsum(0))
        before = torch.cat([self._running.new_zeros(1), self._running])
        self._below.copy_(before[self._starts()])
        self._cell_mass.copy_(before[self._ends] - self._below)

    def _starts(self) -> Tensor:
        return torch.cat([self._ends.new_zeros(1), self._ends[:-1]])

    def _propose(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = (hidden @ self._first.t()).unsqueeze(2) + (hidden @ self._second.t()).unsqueeze(1)
        log_cells = scores.flatten(1).double() + self._cell_mass.log()  # -inf if it is empty
        cells = (log_cells - log_cells.amax(1, keepdim=True)).exp()
        cell, total = draw_columns(cells, self.num_samples)
        u = torch.rand(cell.shape, dtype=torch.float64, device=cell.device)
        place = torch.searchsorted(
            self._running, self._below[cell] + u * self._cell_mass[cell], right=True
        )
        place = place.clamp(self._starts()[cell], (self._ends[cell] - 1).clamp(min=0))
        classes = torch.cat([target.unsqueeze(1), self._members[place]], 1)
        cell = self._cell[classes]
        log_q = (
            log_share(cells, total, cell) + self._log_mass[classes] - self._cell_mass[cell].log()
        )
        return classes[:, 1:], log_q[:, 1:], log_q[:, 0]

    def _proposal_flops(self, num_tokens: int) -> float:
        snapshot = 4.0 * self.num_classes * self.codewords * self.in_features
        return 4.0 * num_tokens * self.codewords * self.in_features + snapshot / self.refresh


def quantise(rows: Tensor, codewords: int) -> tuple[Tensor, Tensor]:
    """Codewords (K, H) by k-means on some of the rows (V, H), and each row's nearest (V,)."""
    step = max(1, rows.shape[0] // _TRAINING_ROWS)
    training = rows[::step]
    centres = training[:: max(1, training.shape[0] // codewords)][:codewords].clone()
    for _ in range(_ITERATIONS):
        nearest = _nearest(training, centres)
        count = count_of(nearest, centres.shape[0]).to(rows.dtype).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, training)
        centres = torch.where(count > 0, sums / count.clamp(min=1), centres)
    return centres, _nearest(rows, centres)


def _nearest(rows: Tensor, centres: Tensor) -> Tensor:
    offset = centres.square().sum(1) / 2
    return torch.addmm(offset, rows, centres.t(), alpha=-1).argmin(1)


def count_of(ids: Tensor, size: int) -> Tensor:
    """How often each id below ``size`` occurs; ``bincount`` would stall a GPU's queue."""
    return ids.new_zeros(size).index_add_(0, ids, torch.ones_like(ids))
