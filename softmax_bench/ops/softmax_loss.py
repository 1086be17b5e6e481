"""Cross-entropy of a linear layer, blocked: scores, loss and all gradients in one pass.

For tokens ``n`` with hidden states ``h_n`` and classes ``j`` with rows ``w_j`` and biases ``b_j``::

    s_nj   = h_n . w_j + b_j
    loss   = sum_n c_n (log Z_n - s_n,t(n)),      Z_n = sum_j exp(s_nj)
    dloss/ds_nj = c_n (exp(s_nj) / Z_n - [j = t(n)])

Three matrix products of 2NVH flop each are unavoidable: the scores, the gradient of ``h`` and the
gradient of ``W``. Everything else is organised so that it costs little beside them:

* Scores are made tile by tile (all tokens of a block x a few hundred classes) and turned into
  exponentials and multiplied by ``W`` while they are still in cache, with the running maximum of
  Milakov & Gimelshein (2018) carried along, so no pass over the whole block comes between.
* The normaliser is never applied to the N x V exponentials. It is folded into the N x H
  operands: ``dh_n`` is scaled after its product, ``h_n`` before the product for ``dW``.
* Exponentials are powers of two, of scores whose operands were scaled by log2(e): torch's
  ``exp2`` takes a third of the time of its ``exp``.
* Exponentials of one block of tokens are kept for the second product; the buffer is bounded
  (:data:`BLOCK_ELEMENTS`) and reused between steps, so memory does not grow with N x V.

The same pass with rows gathered for a sample of classes, the target's score entering apart, is
the loss of sampled softmax.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.workspace import workspace

LOG2_E = math.log2(math.e)

BLOCK_ELEMENTS = 2**26
"""Scores kept at once: 256 MiB in float32."""
MIN_BLOCK_TOKENS = 128
"""Fewer tokens a block would make the products wait for the rows of ``W``."""
TILE_ELEMENTS = 2**19
"""Scores made at once: 2 MiB in float32, near the size of a core's own cache."""


@dataclass(frozen=True)
class Gradients:
    """Gradients of a loss in the three operands of its scores."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None


def token_blocks(num_tokens: int, num_classes: int) -> Iterator[slice]:
    """Blocks of tokens whose scores together fit the workspace, of nearly equal size."""
    most = max(MIN_BLOCK_TOKENS, BLOCK_ELEMENTS // max(1, num_classes))
    count = max(1, math.ceil(num_tokens / most))
    size = math.ceil(num_tokens / count)
    for start in range(0, num_tokens, max(1, size)):
        yield slice(start, min(start + size, num_tokens))


def class_tiles(num_tokens: int, num_classes: int) -> list[slice]:
    """Tiles of classes, nearly equal in size, whose scores for a block of tokens stay in cache."""
    most = min(8192, max(256, TILE_ELEMENTS // max(1, num_tokens)))
    count = max(1, math.ceil(num_classes / most))
    size = 64 * max(1, math.ceil(num_classes / count / 64))  # products like round numbers
    return [slice(start, min(start + size, num_classes)) for start in range(0, num_classes, size)]


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type that sums are kept in: float32 for half-precision inputs."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def tile_scores(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, tile: slice, out: Tensor
) -> Tensor:
    """Scores of one tile of classes, written into ``out``."""
    if bias is None:
        return torch.mm(hidden, weight[tile].t(), out=out)
    return torch.addmm(bias[tile], hidden, weight[tile].t(), out=out)


def exclude_hits(scores: Tensor, tile: slice, excluded: Tensor) -> None:
    """Set ``scores[n, excluded[n]]`` to minus infinity where that column lies in ``tile``."""
    column = excluded - tile.start
    inside = (column >= 0) & (column < scores.shape[1])
    column = column.clamp(0, scores.shape[1] - 1).unsqueeze(1)
    kept = scores.gather(1, column)
    scores.scatter_(1, column, kept.masked_fill(inside.unsqueeze(1), -math.inf))


@untraced
def log_sum_exp(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    *,
    first: Float[Tensor, "N"] | None = None,
    excluded: Int[Tensor, "N"] | None = None,
) -> Float[Tensor, "N"]:
    """``log sum_j exp(h_n . w_j + b_j)`` of every token, one tile of scores at a time.

    Args:
        hidden: Hidden states.
        weight: One row a class.
        bias: One offset a class.
        first: A score of each token that enters the sum besides those of the rows.
        excluded: A row that does not enter a token's sum, -1 for none.
    """
    sums = accumulator(hidden.dtype)
    parts = [
        _block_log_sum_exp(
            hidden[block],
            weight,
            bias,
            None if first is None else first[block].to(sums),
            None if excluded is None else excluded[block],
        )
        for block in token_blocks(hidden.shape[0], 4096)
    ]
    return torch.cat(parts) if parts else hidden.new_empty(0, dtype=sums)


def _block_log_sum_exp(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    first: Tensor | None,
    excluded: Tensor | None,
) -> Tensor:
    total = _RunningSum(hidden, first)
    hidden, bias = _in_base_two(hidden, bias)
    tiles = class_tiles(hidden.shape[0], weight.shape[0])
    widest = max((tile.stop - tile.start for tile in tiles), default=0)
    buffer = workspace(hidden.shape[0] * widest, hidden.dtype, hidden.device)
    for tile in tiles:
        width = tile.stop - tile.start
        scores = buffer[: hidden.shape[0] * width].view(-1, width)
        tile_scores(hidden, weight, bias, tile, scores)
        if excluded is not None:
            exclude_hits(scores, tile, excluded)
        total.add(scores)
    return total.log2() / LOG2_E


def _in_base_two(hidden: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Operands of the scores times log2(e)."""
    return hidden * LOG2_E, None if bias is None else bias * LOG2_E


class _RunningSum:
    """``sum_j 2^s_nj`` of each token over tiles, kept relative to a running maximum."""

    def __init__(self, hidden: Tensor, first: Tensor | None) -> None:
        dtype = accumulator(hidden.dtype)
        if first is None:
            # The lowest finite number, not -inf: a row that is all -inf then gives exp(-inf) = 0
            # and not inf - inf.
            lowest = torch.finfo(dtype).min
            self.maximum = hidden.new_full(hidden.shape[:1], lowest, dtype=dtype)
            self.sum = torch.zeros_like(self.maximum)
        else:
            self.maximum = first * LOG2_E
            self.sum = torch.ones_like(first)

    def add(self, scores: Tensor) -> Tensor:
        """Turn a tile of scores into exponentials relative to the maximum so far, in place.

        Returns:
            The factor by which everything before this tile must be multiplied.
        """
        maximum = torch.maximum(self.maximum, scores.amax(1).to(self.sum.dtype))
        factor = (self.maximum - maximum).exp2_()
        scores.sub_(maximum.to(scores.dtype).unsqueeze(1)).exp2_()
        self.sum.mul_(factor).add_(scores.sum(1, dtype=self.sum.dtype))
        self.maximum = maximum
        return factor

    def log2(self) -> Tensor:
        return self.maximum + self.sum.log2()


def softmax_loss(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    coefficient: Float[Tensor, "N"],
    *,
    first: Float[Tensor, "N"] | None = None,
    excluded: Int[Tensor, "N"] | None = None,
    penalty: float = 0.0,
) -> tuple[Float[Tensor, "N"], Gradients]:
    """Log-normalisers of all tokens, and the gradients of their part of the loss.

    That part is ``sum_n coefficient_n (log Z_n + penalty (log Z_n)^2)``.

    The part of a cross-entropy that comes from the targets is linear in the operands and left to
    the caller: it touches one row a token.

    Args:
        hidden: Hidden states.
        weight: One row a class.
        bias: One offset a class.
        coefficient: Weight of each token in the loss.
        first: A score of each token that enters its sum besides those of the rows.
        excluded: A row that does not enter a token's sum, -1 for none.
        penalty: Weight of the square of ``log Z``.

    Returns:
        ``log Z`` (N,), and the gradients in ``hidden``, ``weight`` and ``bias``.
    """
    num_tokens, num_classes = hidden.shape[0], weight.shape[0]
    sums = accumulator(hidden.dtype)
    gradients = Gradients(
        torch.empty_like(hidden),
        torch.empty_like(weight) if num_tokens else torch.zeros_like(weight),
        None if bias is None else torch.zeros_like(bias),
    )
    log_normalizer = hidden.new_empty(num_tokens, dtype=sums)

    for block in token_blocks(num_tokens, num_classes):
        h = hidden[block]
        tokens = h.shape[0]
        tiles = class_tiles(tokens, num_classes)
        buffer = workspace(tokens * num_classes, hidden.dtype, hidden.device)
        exponentials = [
            buffer[tokens * tile.start : tokens * tile.stop].view(tokens, -1) for tile in tiles
        ]
        total = _RunningSum(h, None if first is None else first[block].to(sums))
        h_in_base_two, bias_in_base_two = _in_base_two(h, bias)
        grad_h = gradients.hidden[block]
        if grad_h.dtype != sums:
            grad_h = torch.empty(h.shape, dtype=sums, device=h.device)
        references = []
        for tile, scores in zip(tiles, exponentials, strict=True):
            tile_scores(h_in_base_two, weight, bias_in_base_two, tile, scores)
            if excluded is not None:
                exclude_hits(scores, tile, excluded[block])
            factor = total.add(scores)
            references.append(total.maximum)
            _accumulate(grad_h, factor, scores, weight[tile], is_first=tile.start == 0)
        log2_z = total.log2()
        log_z = log2_z / LOG2_E
        log_normalizer[block] = log_z
        scale = coefficient[block].to(sums)
        if penalty:
            scale = scale * (1 + 2 * penalty * log_z)
        grad_h.mul_((scale * (total.maximum - log2_z).exp2_()).unsqueeze(1))
        if grad_h.dtype != hidden.dtype:
            gradients.hidden[block] = grad_h

        shared_hidden = torch.empty_like(h)
        for tile, exponential, reference in zip(tiles, exponentials, references, strict=True):
            share = (scale * (reference - log2_z).exp2_()).to(h.dtype)
            torch.mul(h, share.unsqueeze(1), out=shared_hidden)
            if block.start == 0:
                torch.mm(exponential.t(), shared_hidden, out=gradients.weight[tile])
            else:
                gradients.weight[tile].addmm_(exponential.t(), shared_hidden)
            if gradients.bias is not None:
                gradients.bias[tile].addmv_(exponential.t(), share)
    return log_normalizer, gradients


def _accumulate(
    grad: Tensor, factor: Tensor, exponentials: Tensor, weight: Tensor, *, is_first: bool
) -> None:
    """``grad = factor grad + exponentials weight``, in the type of ``grad``."""
    same_type = grad.dtype == weight.dtype
    if is_first:
        if same_type:
            torch.mm(exponentials, weight, out=grad)
        else:
            grad.copy_(exponentials @ weight)
        return
    grad.mul_(factor.unsqueeze(1))
    if same_type:
        grad.addmm_(exponentials, weight)
    else:
        grad.add_(exponentials @ weight)
