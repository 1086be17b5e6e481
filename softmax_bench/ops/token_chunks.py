"""Softmax over all classes by chunks of tokens: library products, and one pass over scores.

For each chunk of tokens, a product writes the scores into a buffer that all chunks share, one pass
over its rows computes the loss and replaces scores by their gradient, and two more products compute
the gradients of the operands. Memory is that of the gradients and one buffer, for any number of
tokens. CUDA computes the dense losses this way; on a CPU, it serves those that the tiles of
:mod:`softmax_bench.ops.cpu.softmax_loss` do not support (a soft cap, the entropy).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from softmax_bench.ops.cpu import score_rows
from softmax_bench.ops.cpu.exponentials import accumulator
from softmax_bench.ops.objective import Objective, Pulls, Terms, TokenSums

FOR_TIME = 2**29
"""Bytes of scores held at once; products of many tokens come close to the device's peak."""
FOR_MEMORY = 2**27
"""The same if memory is short: a quarter, which takes slightly longer."""
WITHOUT_GRADIENT = 2**27
"""The same without gradients: one product per chunk reaches its peak with fewer tokens."""
FEWEST_TOKENS = 128
"""Least tokens of a chunk, however large its scores are; with fewer, products wait for the rows."""

Parts = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Gradients of hidden states, weight and bias; None if not needed."""


def chunks(num_tokens: int, num_classes: int, score_bytes: int, budget: int) -> Iterator[slice]:
    """Chunks of tokens of nearly equal and round size, whose scores fit the budget."""
    most = budget // max(1, num_classes * score_bytes) // FEWEST_TOKENS * FEWEST_TOKENS
    most = max(FEWEST_TOKENS, most)
    size = math.ceil(num_tokens / max(1, math.ceil(num_tokens / most)))
    size = max(FEWEST_TOKENS, math.ceil(size / FEWEST_TOKENS) * FEWEST_TOKENS)
    for start in range(0, num_tokens, size):
        yield slice(start, min(start + size, num_tokens))


def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    objective: Objective,
    *,
    wanted: Sequence[bool],
    save_memory: bool = False,
) -> tuple[Tensor, Parts]:
    """``sum_n coefficient_n loss_n``, and its gradients in the operands that need one."""
    target, coefficient = target.contiguous(), coefficient.contiguous()
    if not any(wanted):
        terms = Terms(objective.soft_cap, objective.class_weight, bool(objective.label_smoothing))
        sums = token_sums(hidden, weight, bias, target, terms)
        losses = objective.losses(sums, target)
        return torch.dot(losses, coefficient.to(losses.dtype)), (None, None, None)
    budget, dtype = _budget(hidden, weight, save_memory=save_memory)
    gradients = _Gradients(hidden, weight, bias, wanted, dtype)
    losses = hidden.new_empty(hidden.shape[0], dtype=accumulator(hidden.dtype))
    for chunk, scores in _scores(hidden, weight, budget, hidden.dtype):
        score_rows.loss_(scores, bias, target[chunk], coefficient[chunk], objective, losses[chunk])
        gradients.add(chunk, scores)
    return losses.sum(), gradients.parts()


def token_sums(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, terms: Terms
) -> TokenSums:
    """The sums of each token's scores. Scores of half-precision operands are float32."""
    dtype, target = accumulator(hidden.dtype), target.contiguous()
    parts = [
        score_rows.sums(scores, bias, target[chunk], terms)
        for chunk, scores in _scores(hidden, weight, WITHOUT_GRADIENT, dtype)
    ]
    if not parts:
        none = hidden.new_empty(0, dtype=dtype)
        parts = [score_rows.sums(none.view(0, weight.shape[0]), bias, target, terms)]
    columns = zip(*parts, strict=True)
    return TokenSums._make(None if of[0] is None else torch.cat(of) for of in columns)


def token_sum_gradients(
    pulls: Pulls,
    sums: TokenSums,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    terms: Terms,
    *,
    wanted: Sequence[bool],
) -> Parts:
    """Gradients of a loss whose gradients in the sums are ``pulls``; scores are recomputed."""
    budget, dtype = _budget(hidden, weight, save_memory=terms.save_memory)
    gradients, target = _Gradients(hidden, weight, bias, wanted, dtype), target.contiguous()
    for chunk, scores in _scores(hidden, weight, budget, hidden.dtype):
        here = Pulls._make(None if pull is None else pull[chunk] for pull in pulls)
        of_chunk = TokenSums._make(None if of is None else of[chunk] for of in sums)
        score_rows.gradient_(scores, bias, target[chunk], here, of_chunk, terms)
        gradients.add(chunk, scores)
    return gradients.parts()


def _budget(hidden: Tensor, weight: Tensor, *, save_memory: bool) -> tuple[int, torch.dtype]:
    """Bytes of scores held at once, and the dtype in which chunks' weight gradients are summed.

    Sums in half precision are rounded after each chunk. If float32 sums take at most half of the
    budget, they do not let memory exceed it, and the scores get the rest. Otherwise they would
    triple the memory of the gradient.
    """
    budget, dtype = FOR_MEMORY if save_memory else FOR_TIME, accumulator(weight.dtype)
    of_sums = weight.numel() * dtype.itemsize
    size = hidden.shape[0], weight.shape[0], hidden.dtype.itemsize
    if dtype == weight.dtype or of_sums > budget // 2 or len(list(chunks(*size, budget))) < 2:
        return budget, weight.dtype
    return budget - of_sums, dtype


def _scores(
    hidden: Tensor, weight: Tensor, budget: int, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor]]:
    """Raw scores ``h . w`` of one chunk after another, all in the same buffer."""
    num_tokens, num_classes = hidden.shape[0], weight.shape[0]
    buffer = None
    for chunk in chunks(num_tokens, num_classes, dtype.itemsize, budget):
        tokens = chunk.stop - chunk.start
        if buffer is None:  # the first chunk is the largest
            buffer = hidden.new_empty(tokens, num_classes, dtype=dtype)
        scores = buffer[:tokens]
        _product(hidden[chunk], weight.t(), scores)
        yield chunk, scores


def _product(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
    """``out = a @ b``, or ``out += a @ b``, summed and written in the dtype of ``out``."""
    options: dict[str, Any] = {"out": out}
    if out.dtype != a.dtype:
        if a.is_cuda:
            options["out_dtype"] = out.dtype
        else:  # elsewhere, torch has no product with another result dtype
            a, b = a.to(out.dtype), b.to(out.dtype)
    if add:
        torch.addmm(out, a, b, **options)
    else:
        torch.mm(a, b, **options)


class _Gradients:
    """Gradients of the operands, summed over chunks of tokens."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        wanted: Sequence[bool],
        sums: torch.dtype,
    ) -> None:
        self._operands = hidden, weight
        self._hidden = torch.empty_like(hidden) if wanted[0] else None
        self._weight = None
        if wanted[1]:  # the first chunk overwrites all of it
            make = torch.empty_like if hidden.shape[0] else torch.zeros_like
            self._weight = make(weight, dtype=sums)
        self._bias = None
        if bias is not None and wanted[2]:
            self._bias = torch.zeros_like(bias, dtype=accumulator(bias.dtype))
            self._bias_type = bias.dtype

    def add(self, chunk: slice, pulls: Tensor) -> None:
        """Add the contribution of a chunk, given its gradient in the scores."""
        hidden, weight = self._operands
        if self._hidden is not None:
            torch.mm(pulls, weight, out=self._hidden[chunk])
        if self._weight is not None:
            _product(pulls.t(), hidden[chunk], self._weight, add=chunk.start > 0)
        if self._bias is not None:
            self._bias += pulls.sum(0, dtype=self._bias.dtype)

    def parts(self) -> Parts:
        """The sums."""
        weight = None if self._weight is None else self._weight.to(self._operands[1].dtype)
        bias = None if self._bias is None else self._bias.to(self._bias_type)
        return self._hidden, weight, bias
