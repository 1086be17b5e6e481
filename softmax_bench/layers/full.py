"""Full softmax: the exact baseline."""

from __future__ import annotations

from torch import Tensor

from softmax_bench.layers.base import Cost
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.ops import linear_cross_entropy


class FullSoftmax(LinearOutputLayer):
    """``p(w|h) = exp(h . w_w + b_w) / sum_j exp(h . w_j + b_j)``, trained by exact likelihood.

    A drop-in replacement for ``nn.Linear`` followed by ``cross_entropy`` that never holds the
    N x V scores. A step costs 6NVH flop.
    """

    name = "full"
    scores = "all N x V"
    source = "-"
    touches_all_rows = True

    def _loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        return linear_cross_entropy(hidden, self.weight, self.bias, target, coefficient)

    def cost(self, num_tokens: int) -> Cost:
        """Three products over all classes; weights and their gradients move once."""
        rows, width = self.num_classes, self.in_features
        size = self.weight.element_size()
        return Cost(
            flops=6.0 * num_tokens * rows * width,
            bytes=size * (2.0 * rows * width + 2.0 * num_tokens * width),
            parameters=sum(p.numel() for p in self.parameters()),
            rows_touched=rows,
        )
