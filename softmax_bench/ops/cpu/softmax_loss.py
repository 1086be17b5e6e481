"""Cross-entropy of a linear layer, blocked: scores, loss and all gradients in one pass.

For tokens ``n`` with hidden states ``h_n`` and classes ``j`` with rows ``w_j`` and biases ``b_j``::

    s_nj   = h_n . w_j + b_j
    loss   = sum_n c_n (log Z_n - s_n,t(n)),      Z_n = sum_j exp(s_nj)
    dloss/ds_nj = c_n (exp(s_nj) / Z_n - [j = t(n)])

Three matrix products of 2NVH flop each are unavoidable: the scores, the gradient of ``h`` and the
gradient of ``W``. Everything else is organised to cost little in comparison:

* Scores are computed tile by tile (all tokens of a block x a few hundred classes), turned into
  exponentials and multiplied by ``W`` while they are still in cache. The normaliser so far is
  carried along, so no pass over the whole block is needed in between.
* The normaliser is never applied to the N x V exponentials. It is folded into the N x H
  operands: ``dh_n`` is scaled after its product, ``h_n`` before the product for ``dW``.
* Exponentials of one block of tokens are kept for the second product; the buffer is bounded
  (:data:`BLOCK_ELEMENTS`) and reused between steps, so memory does not grow with N x V.

The same pass over rows gathered for a sample of classes, with the target's score entering
separately, is the loss of sampled softmax. If the rows are sharded over processes, normalisers are
combined between the products, so that each process still computes three products with its own rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softmax_bench.ops.cpu.exponentials import LOG2_E, Exponentials, accumulator, careful_at_once
from softmax_bench.ops.cpu.large_pages import empty_buffer
from softmax_bench.ops.cpu.workspace import workspace
from softmax_bench.ops.dispatch import by_device

BLOCK_ELEMENTS = 2**26
"""Most scores kept at once: 256 MiB in float32."""
MIN_BLOCK_TOKENS = 128
"""With fewer tokens per block, the products would wait for the rows of ``W``."""
MIN_CACHED_TOKENS = 256
"""With fewer tokens per block, the products would lose more time than sums over tiles of classes
cost.
"""
TILE_ELEMENTS = 2**19
"""Scores computed at once: 2 MiB in float32, close to the size of a core's own cache."""


@dataclass(frozen=True)
class Gradients:
    """Gradients of a loss in the three operands of its scores; None if not needed."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def token_blocks(num_tokens: int, num_classes: int) -> Iterator[slice]:
    """Blocks of tokens whose scores together fit the workspace, of nearly equal size.

    If there are fewer classes than tokens, a block is no larger than the cache instead. It then
    needs no tiles of classes, and the smaller of the two gradients is the one summed over blocks.
    """
    in_cache = 2 * TILE_ELEMENTS // max(1, num_classes)
    if num_classes <= num_tokens and in_cache >= MIN_CACHED_TOKENS:
        most = in_cache
    else:
        most = max(MIN_BLOCK_TOKENS, BLOCK_ELEMENTS // max(1, num_classes))
    count = max(1, math.ceil(num_tokens / most))
    size = math.ceil(num_tokens / count)
    for start in range(0, num_tokens, max(1, size)):
        yield slice(start, min(start + size, num_tokens))


def class_tiles(num_tokens: int, num_classes: int, device: torch.device) -> list[slice]:
    """Tiles of classes of nearly equal size, whose scores for a block of tokens stay in cache.

    An accelerator gets as much as the workspace holds, because it takes long to start a product.
    """
    most = min(8192, max(256, TILE_ELEMENTS // max(1, num_tokens)))
    if device.type != "cpu":
        most = max(256, BLOCK_ELEMENTS // max(1, num_tokens))
    if num_classes <= 2 * most:  # one tile, if it hardly exceeds the cache
        return [slice(0, num_classes)] if num_classes else []
    count = max(1, math.ceil(num_classes / most))
    size = 64 * max(1, math.ceil(num_classes / count / 64))  # products are fastest at round numbers
    return [slice(start, min(start + size, num_classes)) for start in range(0, num_classes, size)]


@by_device
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
        weight: One row per class.
        bias: One offset per class.
        first: A score of each token that enters the sum in addition to those of the rows.
        excluded: A row that does not enter a token's sum, -1 for none.
    """
    parts = [
        _block_log_sum_exp(hidden[block], weight, bias, _part(first, block), _part(excluded, block))
        for block in token_blocks(hidden.shape[0], 4096)
    ]
    return torch.cat(parts) if parts else hidden.new_empty(0, dtype=accumulator(hidden.dtype))


def _part(of_tokens: Tensor | None, block: slice) -> Tensor | None:
    return None if of_tokens is None else of_tokens[block]


def _block_log_sum_exp(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    first: Tensor | None,
    excluded: Tensor | None,
    *,
    careful: bool | None = None,
) -> Tensor:
    careful = careful_at_once(hidden.device) if careful is None else careful
    exponentials = Exponentials(hidden, weight, bias, first, excluded, careful=careful)
    tiles = class_tiles(hidden.shape[0], weight.shape[0], hidden.device)
    widest = max((tile.stop - tile.start for tile in tiles), default=0)
    buffer = workspace(hidden.shape[0] * widest, hidden.dtype, hidden.device)
    for tile in tiles:
        width = tile.stop - tile.start
        exponentials.write(tile, buffer[: hidden.shape[0] * width].view(-1, width))
    if exponentials.overflowed:
        return _block_log_sum_exp(hidden, weight, bias, first, excluded, careful=True)
    return exponentials.total / LOG2_E


def softmax_loss(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    coefficient: Float[Tensor, "N"],
    *,
    first: Float[Tensor, "N"] | None = None,
    excluded: Int[Tensor, "N"] | None = None,
    square: Float[Tensor, "N"] | None = None,
    wanted: Sequence[bool] = (True, True, True),
    join: Callable[[slice, Tensor], Tensor] | None = None,
    block_rows: int | None = None,
) -> tuple[Float[Tensor, "N"], Gradients]:
    """Log-normalisers of all tokens, and the gradients of their part of the loss.

    That part is ``sum_n (coefficient_n log Z_n + square_n (log Z_n)^2)``.

    The targets' part of a cross-entropy is linear in the operands and touches only one row per
    token; it is left to the caller.

    Args:
        hidden: Hidden states.
        weight: One row per class.
        bias: One offset per class.
        coefficient: Weight of each token in the loss.
        first: A score of each token that enters its sum in addition to those of the rows.
        excluded: A row that does not enter a token's sum, -1 for none.
        square: Weight of the square of each token's ``log Z``.
        wanted: Whether the gradients of hidden states, weight and bias are needed.
        join: If other processes have the other rows: converts the base-two logarithms of sums over
            these rows, for a block of tokens, to those of sums over all rows. Called once per
            block, in order.
        block_rows: Determines the token blocks in place of the number of rows. It must be equal on
            all processes, or their exchanges would not pair up.

    Returns:
        ``log Z`` (N,), and the gradients in ``hidden``, ``weight`` and ``bias``.
    """
    num_tokens, num_classes = hidden.shape[0], weight.shape[0]
    sums = accumulator(hidden.dtype)
    gradients = Gradients(
        torch.empty_like(hidden) if wanted[0] else None,
        _weight_gradient(weight, num_tokens) if wanted[1] else None,
        torch.zeros_like(bias) if bias is not None and wanted[2] else None,
    )
    log_normalizer = hidden.new_empty(num_tokens, dtype=sums)

    for block in token_blocks(num_tokens, num_classes if block_rows is None else block_rows):
        h = hidden[block]
        tokens = h.shape[0]
        tiles = class_tiles(tokens, num_classes, hidden.device)
        buffer = workspace(tokens * num_classes, hidden.dtype, hidden.device)
        parts = [
            buffer[tokens * tile.start : tokens * tile.stop].view(tokens, -1) for tile in tiles
        ]
        operands = h, weight, bias, _part(first, block), _part(excluded, block)
        careful = careful_at_once(hidden.device)
        exponentials = Exponentials(*operands, careful=careful)
        grad_h = None if gradients.hidden is None else gradients.hidden[block]
        sum_h, references = _sums(exponentials, weight, tiles, parts, grad_h)
        if exponentials.overflowed:
            exponentials = Exponentials(*operands, careful=True)
            sum_h, references = _sums(exponentials, weight, tiles, parts, grad_h)
        log2_z = exponentials.total
        if join is not None:
            log2_z = join(block, log2_z)
        log_z = log2_z / LOG2_E
        log_normalizer[block] = log_z
        scale = coefficient[block].to(sums)
        if square is not None:
            scale = scale + 2 * square[block].to(sums) * log_z
        if grad_h is not None and sum_h is not None:
            factor = scale * (exponentials.reference - log2_z).exp2_()
            torch.mul(sum_h, factor.unsqueeze(1), out=grad_h)
        if gradients.weight is None and gradients.bias is None:
            continue
        shared_hidden = torch.empty_like(h)
        for tile, part, reference in zip(tiles, parts, references, strict=True):
            share = (scale * (reference - log2_z).exp2_()).to(h.dtype)
            if gradients.weight is not None:
                torch.mul(h, share.unsqueeze(1), out=shared_hidden)
                if block.start == 0:
                    torch.mm(part.t(), shared_hidden, out=gradients.weight[tile])
                else:
                    gradients.weight[tile].addmm_(part.t(), shared_hidden)
            if gradients.bias is not None:
                gradients.bias[tile].addmv_(part.t(), share)
    return log_normalizer, gradients


def _weight_gradient(weight: Tensor, num_tokens: int) -> Tensor:
    """Every row of it is written, unless there are no tokens."""
    if not num_tokens:
        return torch.zeros_like(weight)
    return empty_buffer(weight.shape, weight.dtype, weight.device)


def _sums(
    exponentials: Exponentials,
    weight: Tensor,
    tiles: list[slice],
    parts: list[Tensor],
    out: Tensor | None,
) -> tuple[Tensor | None, list[Tensor]]:
    """Exponentials of all tiles, written into ``parts``.

    Returns:
        Unless ``out`` is None, their product with ``weight`` relative to the last tile's
        reference, in ``out`` if the dtypes allow it; and the reference of every tile.
    """
    sums = exponentials.reference.dtype
    total = out
    if out is not None and out.dtype != sums:
        total = torch.empty(out.shape, dtype=sums, device=out.device)
    if total is not None and not tiles:
        total.zero_()
    references = []
    for tile, part in zip(tiles, parts, strict=True):
        factor = exponentials.write(tile, part)
        references.append(exponentials.reference)
        if total is not None:
            _accumulate(total, factor, part, weight[tile], is_first=tile.start == 0)
    return total, references


def _accumulate(
    grad: Tensor, factor: Tensor, exponentials: Tensor, weight: Tensor, *, is_first: bool
) -> None:
    """``grad = factor grad + exponentials weight``, in the dtype of ``grad``."""
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
