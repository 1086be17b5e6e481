"""Shared by layers with one row and one offset per class: exact inference over all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from softmax_bench.classes.noise import log_unigram
from softmax_bench.layers.base import OutputLayer
from softmax_bench.layers.gumbel import draw
from softmax_bench.layers.options import CommonOptions
from softmax_bench.layers.precision import exactly
from softmax_bench.ops import Terms, TokenSums, keep_coalesced, log_sum_exp, token_sums

SCORES_AT_ONCE = 2**22
"""Most scores that ``topk`` and ``sample`` hold at once."""


class LinearOutputLayer(OutputLayer):
    """Scores ``h . w_j + b_j``, normalised over all classes on demand.

    ``weight`` (V, H) and ``bias`` (V,) are named as in ``nn.Linear``, so state dicts are
    exchangeable. If counts are given, the bias starts at the log-unigram distribution.
    """

    touches_all_rows: ClassVar[bool] = True
    """Whether a training step's gradient is dense, whatever ``sparse`` is."""

    bias: nn.Parameter | None

    def __init__(self, in_features: int, num_classes: int, **common: Unpack[CommonOptions]) -> None:
        super().__init__(in_features, num_classes, **common)
        rows, device, dtype = self._num_rows(), common.get("device"), common.get("dtype")
        self.weight = nn.Parameter(torch.empty(rows, in_features, device=device, dtype=dtype))
        if common.get("bias", True):
            self.bias = nn.Parameter(torch.empty(rows, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()
        for parameter in self.row_sparse_parameters():
            keep_coalesced(parameter)

    def _num_rows(self) -> int:
        """Rows of ``weight``, which are all classes unless processes share them."""
        return self.num_classes

    def reset_parameters(self) -> None:
        """Small uniform rows as in ``nn.Linear``, and a bias at the log-unigram distribution."""
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            with torch.no_grad():
                self.bias.copy_(self._initial_bias())

    def _initial_bias(self) -> Tensor:
        if self._counts is None and self.normalised == "no":
            return torch.zeros(self.num_classes)
        return log_unigram(self._counts, self.num_classes)

    def row_sparse_parameters(self) -> Iterator[nn.Parameter]:
        """Weight and bias, if a step touches few rows."""
        if self.sparse and not self.touches_all_rows:
            yield from (p for p in (self.weight, self.bias) if p is not None)

    @torch.no_grad()
    @exactly
    def log_normalizer(self, hidden: Float[Tensor, "*batch H"]) -> Float[Tensor, "*batch"]:
        """``log Z``, the log of the sum of exponentiated scores over all classes."""
        return self._normalizer(self._flatten(hidden)).view(hidden.shape[:-1])

    def _normalizer(self, hidden: Tensor) -> Tensor:
        return log_sum_exp(hidden, self.weight, self.offsets())

    def _scores(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight, self.offsets())

    @exactly
    def unnormalized_target_log_prob(
        self, hidden: Float[Tensor, "*batch H"], target: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"] | None:
        """The target's score, if training makes it nearly a log-probability."""
        if self.normalised == "no":
            return None
        flat = self._flatten(hidden)
        ids, kept = self._check_target(hidden, target)
        return (self._self_normalized(self._target_scores(flat, ids)) * kept).view(target.shape)

    def _target_scores(self, hidden: Tensor, target: Tensor) -> Tensor:
        scores = torch.linalg.vecdot(hidden, self.weight.index_select(0, target))
        offsets = self.offsets()
        return scores if offsets is None else scores + offsets.index_select(0, target)

    def offsets(self) -> Tensor | None:
        """What the distribution adds to each class's product with a hidden state."""
        return self.bias

    def _self_normalized(self, scores: Tensor) -> Tensor:
        """Log-probabilities, assuming normalised scores."""
        return scores

    def _log_prob(self, hidden: Tensor) -> Tensor:
        return self._scores(hidden).log_softmax(-1)

    def _score_sums(self, hidden: Tensor, target: Tensor, terms: Terms) -> TokenSums:
        """Sums over the scores of all classes, differentiable and in bounded memory."""
        return token_sums(hidden, self.weight, self.offsets(), target, terms)

    def _target_log_prob(self, hidden: Tensor, target: Tensor) -> Tensor:
        sums = self._score_sums(hidden, target, Terms())
        return sums.target_score - sums.log_z

    def _topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        best = [self._scores(h).topk(k) for h in self._token_chunks(hidden)]
        values = torch.cat([scores for scores, _ in best])
        classes = torch.cat([ids for _, ids in best])
        return values - self._normalizer(hidden).unsqueeze(1), classes

    def _sample(self, hidden: Tensor) -> Tensor:
        return torch.cat([draw(self._scores(h).float()) for h in self._token_chunks(hidden)])

    def _token_chunks(self, hidden: Tensor) -> tuple[Tensor, ...]:
        return hidden.split(max(1, SCORES_AT_ONCE // self.num_classes))
