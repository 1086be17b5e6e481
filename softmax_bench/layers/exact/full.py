"""Full softmax: the exact baseline."""

from __future__ import annotations

from typing import ClassVar, Unpack

from torch import Tensor
from torch.nn import functional as F

from softmax_bench.layers.all_classes import AllClassesLayer, AllClassesOptions
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.options import CommonOptions, Normalised
from softmax_bench.ops import Terms, TokenSums, linear_cross_entropy


class FullOptions(AllClassesOptions, total=False):
    """Constructor arguments of full softmax.

    * ``save_memory``: on CUDA, hold a quarter of the scores at once, which takes slightly longer.
    """

    save_memory: bool


class FullSoftmax(AllClassesLayer, LinearOutputLayer):
    """``p(w|h) = exp(h . w_w + b_w) / sum_j exp(h . w_j + b_j)``, trained by exact likelihood.

    A drop-in replacement for ``nn.Linear`` followed by ``cross_entropy`` that never holds the
    N x V scores. A step takes 6NVH floating-point operations.

    Args:
        **options: :class:`FullOptions`, besides those of
            :class:`~softmax_bench.layers.all_classes.AllClassesOptions` and of every output layer.
    """

    name = "full"
    scores = "all N x V"
    source = "-"
    good_for = "the baseline; up to some 10,000 classes, or if time does not matter"
    step_flops = "6 N V H"
    exact = True
    normalised: ClassVar[Normalised] = "no"
    touches_all_rows = True
    traceable = True
    options_type: ClassVar[type[CommonOptions]] = FullOptions

    def __init__(self, in_features: int, num_classes: int, **options: Unpack[FullOptions]) -> None:
        super().__init__(in_features, num_classes, **options)  # type: ignore[misc]
        self.save_memory = options.get("save_memory", False)

    def offsets(self) -> Tensor | None:
        """The bias, divided by the temperature as the scores are."""
        return (
            self.bias
            if self.bias is None or self.temperature == 1
            else self.bias / self.temperature
        )

    def _weighted_loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        return linear_cross_entropy(
            hidden,
            self.weight,
            self.offsets(),
            target,
            coefficient,
            save_memory=self.save_memory,
            **self._objective(hidden)._asdict(),
        )

    def _token_sums(self, hidden: Tensor, target: Tensor, terms: Terms) -> TokenSums:
        terms = terms._replace(soft_cap=self._cap, save_memory=self.save_memory)
        return self._score_sums(hidden, target, terms)

    def _scores(self, hidden: Tensor) -> Tensor:
        return self._capped(F.linear(hidden, self.weight, self.offsets()))

    def _normalizer(self, hidden: Tensor) -> Tensor:
        if not self._cap:
            return super()._normalizer(hidden)
        nothing = hidden.new_zeros(hidden.shape[0]).long()
        return self._token_sums(hidden, nothing, Terms()).log_z

    def flops(self, num_tokens: int) -> float:
        """Three products over all classes."""
        return 6.0 * num_tokens * self.weight.numel()
