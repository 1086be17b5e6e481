"""Sampled softmax whose proposal is a quantised copy of the softmax itself."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.base import CommonOptions, unigram
from softmax_bench.layers.proposals.base import ProposalSoftmax, draw_columns, draw_columns_bytes

_ITERATIONS = 8
_TRAINING_ROWS = 20_000


class MIDXSoftmax(ProposalSoftmax):
    """``q(j|h)`` in proportion to ``exp(h . (c_k1(j) + c_k2(j)) + b_j)``.

    Rows are quantised to the sum of two codewords, the second for what the first leaves over. All
    classes of a cell (k1, k2) differ only by their bias, so a draw is one of K^2 cells by its
    score, then a class of the cell by its bias alone (inverted multi-index; Chen et al. 2021).

    Args:
        num_samples: Draws a token.
        codewords: K of each of the two codebooks.
        refresh: Training steps between snapshots, each with k-means of the rows.
        **common: As for every output layer.
    """

    name = "midx"
    scores = "k classes a token, near its hidden state"
    source = "Chen et al. 2021"
    good_for = "few samples, nearly as good as draws from the softmax itself"
    step_flops = "6 N (k + 1) H + 4 N K H"

    _first: Tensor
    _second: Tensor
    _members: Tensor
    _running: Tensor
    _log_mass: Tensor
    _below: Tensor
    _cell_mass: Tensor
    _first_place: Tensor
    _last_place: Tensor

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
        if codewords < 1:
            raise SoftmaxBenchError(f"codewords must be at least 1, not {codewords}")
        super().__init__(
            in_features, num_classes, num_samples=num_samples, refresh=refresh, **common
        )
        self.codewords = min(codewords, num_classes)
        self._remember(
            "_first", "_second", "_members", "_running", "_log_mass", "_below", "_cell_mass",
            "_first_place", "_last_place",
        )  # fmt: skip

    def _snapshot(self) -> None:
        rows = self.weight.detach()
        self._first, first = quantise(rows, self.codewords)
        self._second, second = quantise(rows - self._first[first], self.codewords)
        cell = first * self.codewords + second
        bias = rows.new_zeros(self.num_classes) if self.bias is None else self.bias.detach()
        # The members of each cell lie together; running masses find a member by one search.
        self._members = cell.argsort(stable=True)
        mass = torch.exp(bias.double() - bias.double().max())[self._members]
        self._running = mass.cumsum(0)
        self._log_mass = mass.log()
        ends = cell.bincount(minlength=self.codewords**2).cumsum(0)
        before = torch.cat([self._running.new_zeros(1), self._running])
        self._below = before[torch.cat([ends.new_zeros(1), ends[:-1]])]
        self._cell_mass = before[ends] - self._below
        self._first_place = torch.cat([ends.new_zeros(1), ends[:-1]])
        self._last_place = (ends - 1).clamp(min=0)

    def _propose(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        scores = (hidden @ self._first.t()).unsqueeze(2) + (hidden @ self._second.t()).unsqueeze(1)
        log_cells = scores.flatten(1).double() + self._cell_mass.log()  # -inf where it is empty
        cells = (log_cells - log_cells.amax(1, keepdim=True)).exp()
        cell, log_cell = draw_columns(cells, self.num_samples)
        u = torch.rand(cell.shape, dtype=torch.float64, device=cell.device)
        place = torch.searchsorted(
            self._running, self._below[cell] + u * self._cell_mass[cell], right=True
        )
        place = place.clamp(self._first_place[cell], self._last_place[cell])
        log_q = log_cell + self._log_mass[place] - self._cell_mass[cell].log()
        return self._members[place], log_q.to(hidden.dtype)

    def _proposal_flops(self, num_tokens: int) -> float:
        snapshot = 4.0 * self.num_classes * self.codewords * self.in_features
        return 4.0 * num_tokens * self.codewords * self.in_features + snapshot / self.refresh

    def _drawn_shares(self) -> npt.NDArray[np.float64]:
        return unigram(None if self.bias is None else self._counts, self.num_classes)

    def _drawing_bytes(self, num_tokens: int) -> int:
        """Scores of all cells, these with the cells' masses, and a draw by their exponentials."""
        cells, size = self.codewords**2, self.weight.element_size()
        drawing = draw_columns_bytes(num_tokens, cells, self.num_samples, 8)
        return num_tokens * cells * (size + 8) + drawing


def quantise(rows: Tensor, codewords: int) -> tuple[Tensor, Tensor]:
    """Codewords (K, H) by k-means of some of the rows (V, H), and the nearest to each row (V,)."""
    step = max(1, rows.shape[0] // _TRAINING_ROWS)
    training = rows[::step]
    centres = training[:: max(1, training.shape[0] // codewords)][:codewords].clone()
    for _ in range(_ITERATIONS):
        nearest = _nearest(training, centres)
        count = nearest.bincount(minlength=centres.shape[0]).to(rows.dtype).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, training)
        centres = torch.where(count > 0, sums / count.clamp(min=1), centres)
    return centres, _nearest(rows, centres)


def _nearest(rows: Tensor, centres: Tensor) -> Tensor:
    offset = centres.square().sum(1) / 2
    return torch.addmm(offset, rows, centres.t(), alpha=-1).argmin(1)
