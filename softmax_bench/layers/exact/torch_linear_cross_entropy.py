"""torch's own loss that never holds all scores, as a reference in the tables."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError, check_positive
from softmax_bench.layers.exact.full import FullOptions, FullSoftmax
from softmax_bench.ops.autograd import differentiable_once


class TorchLinearCrossEntropy(FullSoftmax):
    """``torch.nn.functional.linear_cross_entropy``: full softmax in chunks of tokens.

    Args:
        chunk_tokens: Tokens whose scores are computed at once. None leaves it to torch, which on a
            CPU takes one token at a time from about 10^5 classes on.
        **options: As for full softmax, except ``soft_cap``, ``log_z_penalty`` and
            ``label_smoothing``, which torch's function does not support in chunks.
    """

    capturable = False  # torch asks the device which targets count
    name = "torch_linear_cross_entropy"
    source = "torch 2.13"
    good_for = "a reference for full"
    traceable = False

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        chunk_tokens: int | None = 256,
        **options: Unpack[FullOptions],
    ) -> None:
        if not hasattr(F, "linear_cross_entropy"):
            raise SoftmaxBenchError(
                "torch_linear_cross_entropy needs torch 2.13 or newer; 'full' does the same work"
            )
        if chunk_tokens is not None:
            check_positive("chunk_tokens", chunk_tokens)
        super().__init__(in_features, num_classes, **options)
        if self.soft_cap or self.log_z_penalty or self.label_smoothing:
            raise SoftmaxBenchError(
                "torch_linear_cross_entropy has no soft_cap and no log_z_penalty, and holds all "
                "scores for label_smoothing; 'full' has all three"
            )
        self.chunk_tokens = chunk_tokens

    def _weighted_loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        counted = coefficient[coefficient != 0]
        if not counted.numel() or bool((counted != counted[0]).any()):
            return super()._weighted_loss(
                hidden, target, coefficient
            )  # torch's function takes no weights of tokens
        chunk = None if self.chunk_tokens is None else min(self.chunk_tokens, hidden.shape[0])
        ignored = target.masked_fill(coefficient == 0, -100)
        hidden, weight = differentiable_once(hidden, self.weight)
        total: Tensor = F.linear_cross_entropy(
            hidden,
            weight,
            ignored,
            linear_bias=self.offsets(),
            weight=self.class_weight,
            reduction="sum",
            ignore_index=-100,
            options=nn.LinearCrossEntropyOptions(batch_chunk_size=chunk),
        )
        return total * counted[0]
