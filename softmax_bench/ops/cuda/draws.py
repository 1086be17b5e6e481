"""Lists of classes whose sizes the host knows; classes that are not in a list count 0 times."""

from __future__ import annotations

import torch
from torch import Tensor


def tally(classes: Tensor) -> tuple[Tensor, Tensor]:
    """All classes, sorted; the first of each counts for its repeats too."""
    rows = classes.sort().values
    before = torch.searchsorted(rows, rows)
    count = torch.searchsorted(rows, rows, right=True) - before
    place = torch.arange(rows.shape[0], device=rows.device)
    return rows, torch.where(place == before, count, 0)


def fill_up(classes: Tensor, num_samples: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """All ``classes`` and twice as many draws as can be needed; or, if V is small, all V."""
    wanted = min(num_samples, num_classes)
    if 4 * (num_samples + classes.shape[0]) >= num_classes:
        rows = torch.rand(num_classes, device=classes.device).argsort()
        is_given = torch.zeros_like(rows).index_fill_(0, classes.clamp(0, num_classes - 1), 1)
        given = is_given.index_select(0, rows)
        is_new = 1 - given
    else:
        drawn = torch.randint(num_classes, (2 * num_samples + 64,), device=classes.device)
        rows = torch.cat([classes, drawn])
        in_order, order = rows.sort(stable=True)
        first = torch.ones_like(rows)
        first[1:] = in_order[1:] != in_order[:-1]
        first = torch.empty_like(first).index_copy_(0, order, first)
        is_class = torch.arange(rows.shape[0], device=rows.device) < classes.shape[0]
        given, is_new = first * is_class, first * ~is_class
    taken = is_new * (is_new.cumsum(0) <= wanted - given.sum())
    return rows, given + taken
