"""Adaptive softmax: frequent classes in a head, rare ones in ever narrower tails."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softmax_bench.classes.frequency_order import FrequencyOrder, band_of, probabilities_by_rank
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.base import OutputLayer
from softmax_bench.layers.gumbel import draw
from softmax_bench.layers.options import CommonOptions
from softmax_bench.layers.reduced.cutoffs import choose_cutoffs
from softmax_bench.ops import (
    Groups,
    group_cross_entropy,
    group_nll,
    group_tokens,
    linear_cross_entropy,
    linear_nll,
)


class AdaptiveSoftmax(OutputLayer):
    """``p_head(w|h)`` for the most frequent classes, ``p_head(i|h) p_i(w|h)`` for those in tail i.

    The head scores the frequent classes and one entry per tail; tail i projects the hidden state to
    ``in_features / div_value^(i+1)`` dimensions and scores its own classes. A token needs the head
    and at most one tail.

    It loads the state dict of ``torch.nn.AdaptiveLogSoftmaxWithLoss`` and adds what that lacks:
    class ids in any order, biases, ``ignore_index`` and ``reduction``, widths that never reach 0,
    a gradient for every tail in every step, memory independent of N x V, training steps that never
    wait for a GPU, and cut-offs chosen by a cost model.

    Args:
        cutoffs: Frequency ranks at which the tails begin, in ascending order and below V; chosen by
            :func:`~softmax_bench.layers.reduced.cutoffs.choose_cutoffs` if None.
        div_value: Factor by which each tail is narrower than the one before.
        **common: As for every output layer.
    """

    name = "adaptive"
    scores = "the head, and each target's tail"
    source = "Grave et al. 2017"
    good_for = "large V with rare classes; nearly full softmax's perplexity, several times faster"
    step_flops = "6 N H (head) + 6 N sum_i share_i H_i (H + V_i) over the tails i"
    exact = True
    normalised = "by construction"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        cutoffs: Sequence[int] | None = None,
        div_value: float = 4.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        if not div_value > 0:
            raise SoftmaxBenchError(f"div_value must be positive, not {div_value}")
        super().__init__(in_features, num_classes, **common)
        shares = probabilities_by_rank(self._counts, num_classes)
        if cutoffs is None:
            cutoffs = choose_cutoffs(shares, in_features, div_value)
        if any(not isinstance(c, int) or isinstance(c, bool) for c in cutoffs) or not all(
            low < high for low, high in zip((0, *cutoffs), (*cutoffs, num_classes), strict=True)
        ):
            raise SoftmaxBenchError(
                f"cutoffs must be ascending whole numbers from 1 to {num_classes - 1}, "
                f"not {list(cutoffs)!r}"
            )
        self.order = FrequencyOrder(self._counts, num_classes)
        self.cutoffs = [*cutoffs, num_classes]
        self.shortlist_size = self.cutoffs[0]
        factory = {"device": common.get("device"), "dtype": common.get("dtype")}
        bias = common.get("bias", True)
        self.head = nn.Linear(in_features, self.shortlist_size + len(cutoffs), bias=bias, **factory)
        self.tail = nn.ModuleList(
            nn.Sequential(
                nn.Linear(in_features, width, bias=False, **factory),
                nn.Linear(width, high - low, bias=bias, **factory),
            )
            for low, high, width in self._tails(div_value)
        )
        self._shares = [float(shares[low:high].sum()) for low, high in self._ranges()]
        self.order.to(self.head.weight.device)
        if bias:
            self._start_at_unigram(shares)

    def _ranges(self) -> list[tuple[int, int]]:
        return list(zip(self.cutoffs[:-1], self.cutoffs[1:], strict=True))

    def _parts(self) -> Iterator[tuple[nn.Linear, nn.Linear]]:
        """Projection and scores of each tail."""
        for tail in self.tail:
            assert isinstance(tail, nn.Sequential)
            project, scores = tail
            assert isinstance(project, nn.Linear)
            assert isinstance(scores, nn.Linear)
            yield project, scores

    def _tails(self, div_value: float) -> list[tuple[int, int, int]]:
        return [
            (low, high, max(1, int(self.in_features // div_value ** (index + 1))))
            for index, (low, high) in enumerate(self._ranges())
        ]

    @torch.no_grad()
    def _start_at_unigram(self, shares: np.ndarray) -> None:
        log_share = torch.from_numpy(np.log(shares))
        tails = [log_share[low:high] for low, high in self._ranges()]
        head = [
            log_share[: self.shortlist_size],
            *(tail.logsumexp(0, keepdim=True) for tail in tails),
        ]
        self.head.bias.copy_(torch.cat(head))
        for (_, scores), tail in zip(self._parts(), tails, strict=True):
            scores.bias.copy_(tail)

    def _split(self, target: Tensor) -> tuple[Tensor, Tensor, Groups]:
        """Entry of the head for each token, its rank, and the tokens of the head and each tail."""
        rank = self.order.ranks(target)
        band = band_of(rank, self.cutoffs[:-1])
        entry = torch.where(band == 0, rank, self.shortlist_size - 1 + band)
        return entry, rank, group_tokens(band, len(self.cutoffs))

    def _of_tails(self, rank: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor | None, Tensor]]:
        """Projection, rows and offsets of each tail, and each token's place among its classes."""
        for (project, scores), low in zip(self._parts(), self.cutoffs, strict=False):
            yield project.weight, scores.weight, scores.bias, rank - low

    def _weighted_loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        entry, rank, bands = self._split(target)
        loss = linear_cross_entropy(hidden, self.head.weight, self.head.bias, entry, coefficient)
        for band, tail in enumerate(self._of_tails(rank), 1):
            loss = loss + group_cross_entropy(hidden, *tail, coefficient, bands, band)
        return loss

    def _token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        entry, rank, bands = self._split(target)
        losses, _ = linear_nll(hidden, self.head.weight, self.head.bias, entry)
        for band, tail in enumerate(self._of_tails(rank), 1):
            losses = losses + group_nll(hidden, *tail, bands, band)
        return losses

    def _target_log_prob(self, hidden: Tensor, target: Tensor) -> Tensor:
        return -self._token_losses(hidden, target)

    def _log_prob(self, hidden: Tensor) -> Tensor:
        head = self.head(hidden).log_softmax(1)
        parts = [head[:, : self.shortlist_size]]
        for index, tail in enumerate(self.tail):
            parts.append(tail(hidden).log_softmax(1) + head[:, self.shortlist_size + index, None])
        return self.order.by_class(torch.cat(parts, 1))

    def _topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Open a tail only for tokens that give it more probability than their k-th best class."""
        head = self.head(hidden).log_softmax(1)
        best, rank = head[:, : self.shortlist_size].topk(min(k, self.shortlist_size))
        best = F.pad(best, (0, k - best.shape[1]), value=-math.inf)
        rank = F.pad(rank, (0, k - rank.shape[1]))
        for index, (low, high) in enumerate(self._ranges()):
            reached = head[:, self.shortlist_size + index]
            token = (reached > best[:, -1]).nonzero().squeeze(1)
            inside = self.tail[index](hidden[token]).log_softmax(1) + reached[token].unsqueeze(1)
            values, columns = inside.topk(min(k, high - low))
            merged, place = torch.cat([best[token], values], 1).topk(k)
            best[token] = merged
            rank[token] = torch.cat([rank[token], columns + low], 1).gather(1, place)
        return best, self.order.classes(rank)

    def _sample(self, hidden: Tensor) -> Tensor:
        rank = draw(self.head(hidden))
        entry = rank - self.shortlist_size
        for index, low in enumerate(self.cutoffs[:-1]):
            token = (entry == index).nonzero().squeeze(1)
            rank[token] = draw(self.tail[index](hidden[token])) + low
        return self.order.classes(rank)

    def flops(self, num_tokens: int) -> float:
        """Three products over the head, and over each tail for its share of the tokens."""
        width = self.in_features
        per_token = 6.0 * width * self.head.out_features
        for share, (project, scores) in zip(self._shares, self._parts(), strict=True):
            per_token += share * 6.0 * project.out_features * (width + scores.out_features)
        return num_tokens * per_token
