"""Partial FC: softmax over the batch's targets and a uniform sample of the other classes."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from softmax_bench.classes.draws import draws
from softmax_bench.errors import check_positive
from softmax_bench.layers.options import CommonOptions
from softmax_bench.layers.sampled.base import Negatives, SharedNegativesSoftmax
from softmax_bench.ops import fill_up


class PartialFC(SharedNegativesSoftmax):
    """Cross-entropy over S classes: all targets of the batch, and others drawn uniformly.

    Classes are drawn without replacement and not corrected for: the loss is that of a smaller
    softmax, in which frequent and rare negatives are equally likely (class-centre sampling; An et
    al. 2021, 2022). The cost of a draw does not depend on V unless S is close to it.

    Args:
        num_samples: S; more if the batch has more distinct targets.
        **common: As for every output layer.
    """

    name = "partial_fc"
    scores = "N x k, the batch's targets among them"
    source = "An et al. 2021, 2022"
    good_for = "classes of even frequency, such as identities of faces"
    step_flops = "6 N (k + 1) H"
    sees_other_tokens = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int = 1024,
        **common: Unpack[CommonOptions],
    ) -> None:
        check_positive("num_samples", num_samples)
        super().__init__(in_features, num_classes, **common)
        self.num_samples = num_samples

    @draws
    def draw(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Classes (M,), and corrections of their scores: 0, or ``-inf`` for those not drawn."""
        rows, count = fill_up(target, self.num_samples, self.num_classes)
        return rows, count.to(self.weight.dtype).log()

    def _negatives(self, target: Tensor, kept: Tensor) -> Negatives:
        rows, offset = self.draw(target)
        return Negatives(rows, offset, offset.new_zeros(target.shape))

    def flops(self, num_tokens: int) -> float:
        """Three products over the sample."""
        return 6.0 * num_tokens * (self.rows_touched(num_tokens) + 1) * self.in_features

    def rows_touched(self, num_tokens: int) -> float:
        """The rows of the sample; it is assumed to hold all targets."""
        return min(self.num_samples, self.num_classes)
