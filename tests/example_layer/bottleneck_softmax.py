"""Full softmax behind a bottleneck: scores cost rank / H of what they cost otherwise."""

from typing import Unpack

from torch import Tensor, nn

from softmax_bench import FullSoftmax, OutputLayer
from softmax_bench.layers import CommonOptions


class BottleneckSoftmax(OutputLayer):
    """Softmax of ``(h P) . w_j + b_j`` with ``P`` (H, rank) and rows ``w_j`` of ``rank`` numbers.

    Args:
        rank: Width of the bottleneck.
        **common: As for every output layer.
    """

    name = "bottleneck"
    scores = "all N x V, in few dimensions"
    source = "Sainath et al. 2013"
    good_for = "many classes that differ in few dimensions"
    step_flops = "6 N (V + H) rank"
    exact = True
    normalised = "no"
    traceable = True

    def __init__(
        self, in_features: int, num_classes: int, *, rank: int = 64, **common: Unpack[CommonOptions]
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        self.softmax = FullSoftmax(rank, num_classes, **common)
        like = self.softmax.weight
        self.project = nn.Linear(in_features, rank, False, device=like.device, dtype=like.dtype)

    def _weighted_loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        return self.softmax._weighted_loss(self.project(hidden), target, coefficient)

    def _token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        return self.softmax._token_losses(self.project(hidden), target)

    def _log_prob(self, hidden: Tensor) -> Tensor:
        return self.softmax._log_prob(self.project(hidden))

    def _target_log_prob(self, hidden: Tensor, target: Tensor) -> Tensor:
        return self.softmax._target_log_prob(self.project(hidden), target)

    def _topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return self.softmax._topk(self.project(hidden), k)

    def _sample(self, hidden: Tensor) -> Tensor:
        return self.softmax._sample(self.project(hidden))

    def flops(self, num_tokens: int) -> float:
        """Those of full softmax at the smaller width, and of the projection's three products."""
        return self.softmax.flops(num_tokens) + 6.0 * num_tokens * self.project.weight.numel()
