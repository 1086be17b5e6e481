"""Ignored tokens in layers whose sample is the batch, without asking a device for their number."""

from __future__ import annotations

import torch
from torch import Tensor


def of_kept_classes(target: Tensor, kept: Tensor) -> Tensor:
    """Targets (N,) where tokens that are not ``kept`` get the class of the first one that is."""
    if not target.shape[0]:
        return target
    first = kept.int().argmax(0, keepdim=True)
    return torch.where(kept, target, target.index_select(0, first))


def count_of_kept(rows: Tensor, count: Tensor, target: Tensor, kept: Tensor) -> Tensor:
    """How often each of the sorted ``rows`` is the target of a kept token.

    Args:
        rows: The classes in ``target``.
        count: How often each of them occurs in ``target``.
        target: From :func:`of_kept_classes`.
        kept: (N,) which tokens count.
    """
    if not target.shape[0]:
        return count
    ignored = target.index_select(
        0, kept.int().argmin(0, keepdim=True)
    )  # all in the first kept token's class
    number = (~kept).sum(0, keepdim=True).to(count.dtype)
    return count.index_add(0, torch.searchsorted(rows, ignored), -number)
