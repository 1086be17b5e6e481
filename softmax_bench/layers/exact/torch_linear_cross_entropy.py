"""torch's own loss that never holds all scores, as a reference in every table."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.base import CommonOptions
from softmax_bench.layers.exact.full import FullSoftmax
from softmax_bench.ops.autograd import differentiable_once


class TorchLinearCrossEntropy(FullSoftmax):
    """``torch.nn.functional.linear_cross_entropy``: full softmax in chunks of tokens.

    Args:
        chunk_tokens: Tokens whose scores are made at once. None leaves it to torch, whose choice
            on a CPU is one token at a time from about 10^5 classes on.
        **common: As for every output layer.
    """

    name = "torch_linear_cross_entropy"
    source = "torch 2.13"
    good_for = "the reference for full"
    traceable = False

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        chunk_tokens: int | None = 256,
        **common: Unpack[CommonOptions],
    ) -> None:
        if not hasattr(F, "linear_cross_entropy"):
            raise SoftmaxBenchError(
                "torch_linear_cross_entropy needs torch 2.13 or newer; 'full' does the same work"
            )
        super().__init__(in_features, num_classes, **common)
        self.chunk_tokens = chunk_tokens

    def _loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        if not hidden.shape[0]:
            return super()._loss(hidden, target, coefficient)
        chunk = None if self.chunk_tokens is None else min(self.chunk_tokens, hidden.shape[0])
        ignored = target.masked_fill(coefficient == 0, -100)
        hidden, weight = differentiable_once(hidden, self.weight)
        total: Tensor = F.linear_cross_entropy(
            hidden,
            weight,
            ignored,
            linear_bias=self.bias,
            reduction="sum",
            ignore_index=-100,
            options=nn.LinearCrossEntropyOptions(batch_chunk_size=chunk),
        )
        return total * coefficient.max()  # the tokens that count all count alike
