"""torch's own adaptive softmax, as a reference in every table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from softmax_bench.layers.reduced.adaptive import AdaptiveSoftmax
from softmax_bench.ops import Footprint, in_turn, plain_footprint


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

    def _footprint(self, num_tokens: int, tokens_of_tail: Sequence[int]) -> Footprint:
        """All scores at once, the tails first; those of the last tail stay to the head's end."""
        width, size = self.in_features, self.head.weight.element_size()
        bias = self.head.bias is not None
        all_states = num_tokens * width * size
        parts, last = [], 0
        for tokens, (project, scores) in zip(tokens_of_tail, self._parts(), strict=True):
            if not tokens:
                continue
            narrow = project.out_features
            tail = plain_footprint(tokens, scores.out_features, narrow, size, bias=bias)
            parts.append(self._projected(tail, tokens, project, all_states))
            last = tokens * scores.out_features * size
        head = plain_footprint(num_tokens, self.head.out_features, width, size, bias=bias)
        return in_turn([*parts, replace(head, forward=head.forward + last)])

    @property
    def n_classes(self) -> int:
        """Torch's name for ``num_classes``."""
        return self.num_classes
