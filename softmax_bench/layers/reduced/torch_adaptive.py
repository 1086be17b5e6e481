"""torch's own adaptive softmax, as a reference in the tables."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from softmax_bench.layers.reduced.adaptive import AdaptiveSoftmax


class TorchAdaptiveSoftmax(AdaptiveSoftmax):
    """``torch.nn.AdaptiveLogSoftmaxWithLoss.forward`` on the parameters of our adaptive softmax.

    torch's code is timed and trained, with the cut-offs of our layer. Our layer adds what torch's
    lacks: a start at the unigram distribution, class ids in any order, ``ignore_index``, and exact
    evaluation in bounded memory. Here, a tail without a target in the step gets no gradient, so
    ``DistributedDataParallel`` needs ``find_unused_parameters=True``, which no other layer does.

    Args:
        cutoffs: As for ``adaptive``.
        div_value: As for ``adaptive``.
        **common: As for every output layer.
    """

    capturable = False  # the device is asked how many tokens each tail has
    name = "torch_adaptive"
    source = "Grave et al. 2017, implemented by torch"
    good_for = "a reference for adaptive"

    def _weighted_loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        return torch.dot(self._token_losses(hidden, target).to(coefficient.dtype), coefficient)

    def _token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        # torch's forward reads head, tail, cutoffs, shortlist_size and n_classes under these names.
        torchs = cast(Any, nn.AdaptiveLogSoftmaxWithLoss)
        log_prob: Tensor = torchs.forward(self, hidden, self.order.ranks(target)).output
        return -log_prob

    def _target_log_prob(self, hidden: Tensor, target: Tensor) -> Tensor:
        return -super()._token_losses(hidden, target)

    @property
    def n_classes(self) -> int:
        """Torch's name for ``num_classes``."""
        return self.num_classes
