"""Lists of classes, by torch operations that determine how many are distinct."""

from __future__ import annotations

import torch
from torch import Tensor

from softmax_bench.ops.dispatch import by_device


@by_device
def tally(classes: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct classes and their counts."""
    rows, count = torch.unique(classes, sorted=True, return_counts=True)
    return rows, count


@by_device
def fill_up(classes: Tensor, num_samples: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Distinct classes, sorted."""
    given = torch.unique(classes)
    wanted = min(num_samples, num_classes) - given.shape[0]
    if wanted > 0:
        given = torch.cat([given, _others(given, wanted, num_classes)]).sort().values
    return given, torch.ones_like(given)


def _others(given: Tensor, wanted: int, num_classes: int) -> Tensor:
    if 4 * (wanted + given.shape[0]) < num_classes:
        # Twice as many draws as needed, so that there are hardly ever too few new distinct ones.
        drawn = torch.randint(num_classes, (2 * wanted + 64,), device=given.device)
        drawn = torch.unique(drawn)
        new = drawn[~torch.isin(drawn, given)]
        if new.shape[0] >= wanted:
            return new[torch.randperm(new.shape[0], device=new.device)[:wanted]]
    free = torch.ones(num_classes, dtype=torch.bool, device=given.device)
    free[given] = False
    new = free.nonzero().squeeze(1)
    return new[torch.randperm(new.shape[0], device=new.device)[:wanted]]
