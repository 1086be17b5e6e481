"""Shared by layers that sample from a proposal that follows the model.

A proposal that knows the hidden state draws for each token the classes that matter there, so it
needs few samples where a fixed distribution needs many (Bengio & Senecal 2008; Blanc & Rendle
2018). It draws from a *snapshot* of the rows, which is renewed from time to time. The correction
uses the probabilities of the draw itself, so an outdated snapshot costs variance, not bias.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Self, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.classes.counts import unigram
from softmax_bench.classes.draws import draws
from softmax_bench.classes.noise import expected_distinct, log_unigram
from softmax_bench.errors import check_positive
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.options import CommonOptions
from softmax_bench.ops import pair_scores


class ProposalSoftmax(LinearOutputLayer):
    """``log(exp(s_t) + sum over draws j != t of exp(s_j) (1 - q_t) / (n q_j)) - s_t``.

    Of a token's m draws from q(.|h), n are classes other than its target t: a sample of the other
    classes, which have mass 1 - q_t. The sum estimates their contribution to Z without bias for any
    q, and exactly if q is the softmax itself (Blanc & Rendle 2018, theorem 2.1).

    Args:
        num_samples: Number of draws m for each token.
        refresh: Most training steps between snapshots of the rows. Early in training, when rows
            move fast, a snapshot is used for a tenth as many steps as preceded it.
    """

    touches_all_rows = False
    exact = False
    normalised = "no"
    capturable = False  # the host decides when a snapshot is due

    _clock: Tensor
    """Training steps so far, and the step at which the next snapshot is due."""

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int,
        refresh: int,
        **common: Unpack[CommonOptions],
    ) -> None:
        for what, value in (("num_samples", num_samples), ("refresh", refresh)):
            check_positive(what, value)
        super().__init__(in_features, num_classes, **common)
        self.num_samples = num_samples
        self.refresh = refresh
        self._dtype = torch.promote_types(self.weight.dtype, torch.float32)
        self._keep("_clock", (2,), torch.int64)

    def _keep(self, name: str, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
        """Register a buffer for snapshots, of at least float32 by default."""
        on_cpu = name == "_clock" or self.weight.device.type == "meta"
        device = "cpu" if on_cpu else self.weight.device
        zeros = torch.zeros(shape, dtype=dtype or self._dtype, device=device)
        self.register_buffer(name, zeros, persistent=False)

    @abstractmethod
    def _snapshot(self, rows: Tensor) -> None:
        """Store what the proposal needs of the current rows (V, H) in buffers."""

    @abstractmethod
    def _propose(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`propose`."""

    @draws
    @torch.no_grad()
    def propose(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw for each token from a snapshot that is at most ``refresh`` steps old.

        Returns:
            Classes (N, m), drawn with replacement; the log-probability of each draw (N, m), and
            that of each target (N,).
        """
        # Probabilities keep the snapshot's dtype under autocast too, because they correct the loss.
        with torch.autocast(hidden.device.type, enabled=False):
            steps, due = self._clock.tolist()
            if steps >= due:
                self._renew(min(self.refresh, 1 + steps // 10))
            self._clock[0] += self.training
            return self._propose(hidden.detach().to(self._dtype), target)

    @torch.no_grad()
    def settle(self) -> int:
        """See the base class: a snapshot that serves for ``refresh`` steps."""
        with torch.autocast(self.weight.device.type, enabled=False):
            self._renew(self.refresh)
        return self.refresh

    def _renew(self, steps: int) -> None:
        """Take a snapshot that serves for some steps."""
        self._snapshot(self.weight.detach().to(self._dtype))
        self._clock[1] = self._clock[0] + steps

    def _log_prior(self) -> Tensor:
        """Log-probabilities (V,) that proposals start from, of the bias or else of the counts.

        The bias holds most of the information about the classes' frequencies. Without it, a
        proposal would draw frequent classes so rarely that nothing would keep their scores from
        growing: a class that is drawn m q_j times per token cannot be pushed down where p_j is
        larger.
        """
        if self.bias is None:
            return log_unigram(self._counts, self.num_classes).to(self.weight.device)
        return self.bias.detach().double().log_softmax(0)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._clock = torch.zeros_like(self._clock, device="cpu")  # because every step reads it
        return self

    def propose_others(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Classes (N, m) drawn for each token, and the log of each one's expected count.

        The count is that among draws other than the target. For the target it is infinite, which
        excludes it from any sum of weights.
        """
        drawn, log_q, log_q_target = self.propose(hidden, target)
        hit = drawn == target.unsqueeze(1)
        others = torch.log(-torch.expm1(log_q_target.double().clamp(max=-1e-12)))
        log_expected = log_q + (torch.log((~hit).sum(1).clamp(min=1)) - others).unsqueeze(1)
        return drawn, log_expected.masked_fill(hit, math.inf)

    def _token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        drawn, log_expected = self.propose_others(hidden, target)
        rows = torch.cat([target.unsqueeze(1), drawn], 1)
        tokens, width = rows.shape
        starts = torch.arange(tokens + 1, device=hidden.device) * width
        scores = pair_scores(hidden, *self._trained(self.weight, self.bias), starts, rows.view(-1))
        # The target is always present: the log of its expected count is 0.
        scores = scores.view(tokens, width) - F.pad(log_expected, (1, 0)).to(scores.dtype)
        return F.cross_entropy(scores, torch.zeros_like(target), reduction="none")

    def _proposal_flops(self, num_tokens: int) -> float:
        """Operations of drawing, including a step's share of the snapshot."""
        raise NotImplementedError

    def flops(self, num_tokens: int) -> float:
        """The proposal, and three products over the draws."""
        products = 6.0 * num_tokens * (self.num_samples + 1) * self.in_features
        return products + self._proposal_flops(num_tokens)

    def rows_touched(self, num_tokens: int) -> float:
        """Distinct classes among draws and targets, before the model has learned much."""
        drawn = unigram(None if self.bias is None else self._counts, self.num_classes)
        of_targets = unigram(self._counts, self.num_classes)
        return expected_distinct((drawn, num_tokens * self.num_samples), (of_targets, num_tokens))


def draw_columns(masses: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    """Columns (R, ``num_samples``) in proportion to masses (R, C), and sums (R, 1) in float64."""
    running = masses.cumsum(1, dtype=torch.float64)
    total = running[:, -1:].contiguous()
    u = torch.rand(masses.shape[0], num_samples, dtype=torch.float64, device=masses.device)
    column = torch.searchsorted(running, u * total, right=True)
    # Rounding may go past the last column with mass, so take the first that holds the whole sum.
    # Masses that are NaN must not lead outside either; the loss will report them.
    last = torch.searchsorted(running, total)
    return torch.minimum(column, last).clamp_(max=masses.shape[1] - 1), total


def log_share(masses: Tensor, total: Tensor, column: Tensor) -> Tensor:
    """Log of the share of columns (R, m) in rows of masses (R, C) with these sums, in float64."""
    return torch.log(masses.gather(1, column).double() / total)
