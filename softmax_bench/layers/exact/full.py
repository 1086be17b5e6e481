"""Full softmax: the exact baseline."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.base import CommonOptions
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.ops import linear_cross_entropy, linear_nll


class FullSoftmax(LinearOutputLayer):
    """``p(w|h) = exp(h . w_w + b_w) / sum_j exp(h . w_j + b_j)``, trained by exact likelihood.

    A drop-in replacement for ``nn.Linear`` followed by ``cross_entropy`` that never holds the
    N x V scores. A step costs 6NVH flop.

    Args:
        label_smoothing: Share of the target's probability that is spread evenly over all classes
            in the training objective (Szegedy et al. 2016). Costs two more passes over the weight.
        **common: As for every output layer.
    """

    name = "full"
    scores = "all N x V"
    source = "-"
    good_for = "the baseline; up to some 10,000 classes, or where time matters least"
    step_flops = "6 N V H"
    exact = True
    normalised = "no"
    touches_all_rows = True
    traceable = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        label_smoothing: float = 0.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise SoftmaxBenchError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
        super().__init__(in_features, num_classes, **common)
        self.label_smoothing = label_smoothing

    def _loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        loss = linear_cross_entropy(hidden, self.weight, self.bias, target, coefficient)
        if self.label_smoothing:
            loss = loss + torch.dot(self._smoothing(hidden, target), coefficient.to(loss.dtype))
        return loss

    def _losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        nll, _ = linear_nll(hidden, self.weight, self.bias, target)
        return nll + self._smoothing(hidden, target) if self.label_smoothing else nll

    def _smoothing(self, hidden: Tensor, target: Tensor) -> Tensor:
        """What smoothing adds to ``log Z - s_target``: its share of ``s_target - mean score``.

        The mean of all scores is the score of the mean row, so no N x V scores are needed.
        """
        away = self.weight.mean(0) - F.embedding(target, self.weight)
        score = torch.linalg.vecdot(hidden, away)
        if self.bias is not None:
            score = score + self.bias.mean() - F.embedding(target, self.bias.unsqueeze(1))[:, 0]
        return -self.label_smoothing * score

    def flops(self, num_tokens: int) -> float:
        """Three products over all classes."""
        return 6.0 * num_tokens * self.weight.numel()
