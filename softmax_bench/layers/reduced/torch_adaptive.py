"""torch's own adaptive softmax, as a reference in every table."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from softmax_bench.layers.reduced.adaptive import AdaptiveSoftmax


class TorchAdaptiveSoftmax(AdaptiveSoftmax):
    """``torch.nn.AdaptiveLogSoftmaxWithLoss.forward`` on the parameters of our adaptive softmax.

    What is timed and trained is torch's code, at equal cut-offs. Left to ours is what torch's
    layer lacks: the start at the unigram distribution, class ids in any order, ``ignore_index``,
    exact evaluation in bounded memory. A tail without a target in the step gets no gradient here.

    Args:
        cutoffs: As for ``adaptive``.
        div_value: As for ``adaptive``.
        **common: As for every output layer.
    """

    name = "torch_adaptive"
    source = "Grave et al. 2017, by torch"
    good_for = "the reference for adaptive"

    def _loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        return torch.dot(self._losses(hidden, target).to(coefficient.dtype), coefficient)

    def _losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        # It reads head, tail, cutoffs, shortlist_size and n_classes, which are named as there.
        torchs = cast(Any, nn.AdaptiveLogSoftmaxWithLoss)
        log_prob: Tensor = torchs.forward(self, hidden, self.order.ranks(target)).output
        return -log_prob

    def _target_log_prob(self, hidden: Tensor, target: Tensor) -> Tensor:
        return -super()._losses(hidden, target)

    @property
    def n_classes(self) -> int:
        """Torch's name for ``num_classes``."""
        return self.num_classes
