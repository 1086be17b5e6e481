"""Row-sparse gradients on a GPU, in steps whose sizes the host knows beforehand.

Only the device knows how many distinct rows a step touches, and asking it would stall the queue. So
a gradient has room for as many rows as possible: the distinct ones come first, in order, and the
rest are zero. Their number stays on the device, and kernels stop there. A row's entries are summed
in a fixed order, so results are bitwise the same in every run, even without
``torch.use_deterministic_algorithms``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from softmax_bench.ops.cuda.launch import block_of, packed, sums_of, warps_for

_CHUNK = 32
"""Entries that one program sums."""


@dataclass(frozen=True)
class Rows:
    """The distinct rows among a list of ids, and the row of each entry."""

    ids: Tensor
    """(M,) the distinct ids in ascending order, then zeros; M is the largest possible number."""
    count: Tensor
    """(1,) int32: number of distinct ids."""
    order: Tensor
    """(P,) the entries sorted by id."""
    place: Tensor
    """(P,) int32: for each entry in that order, the position of its id among ``ids``; M if the id
    is not a row.
    """


def distinct_rows(ids: Tensor, num_rows: int, most: int | None = None) -> Rows:
    """Distinct rows among ``ids`` (P,); those outside [0, ``num_rows``) are left out.

    Args:
        ids: The ids to search.
        num_rows: Number of existing rows.
        most: A bound on the number of distinct ids, if a better one than P is known.
    """
    entries = ids.shape[0]
    most = min(entries, num_rows, entries if most is None else most)
    if not entries:
        nothing = ids.new_empty(0, dtype=torch.int64)
        return Rows(nothing, ids.new_zeros(1, dtype=torch.int32), nothing, nothing.int())
    key = torch.where((ids >= 0) & (ids < num_rows), ids, num_rows).int()
    key, order = torch.sort(key, stable=True)
    head = torch.ones_like(key)
    torch.ne(key[1:], key[:-1], out=head[1:])
    inside = key < num_rows
    place = head.mul_(inside).cumsum(0, dtype=torch.int32).sub_(1)
    count = place[-1:] + 1
    place = torch.where(inside, place, most)
    distinct = ids.new_zeros(most + 1, dtype=torch.int64)
    distinct.scatter_(0, place.long(), key.long())
    return Rows(distinct[:most], count, order, place)


def sum_rows(
    rows: Rows,
    values: Tensor,
    num_rows: int,
    *,
    scale: Tensor | None = None,
    source: Tensor | None = None,
) -> Tensor:
    """The row-sparse gradient in which entry p adds ``scale[p] * values[source[p]]`` to its row.

    Args:
        rows: The distinct rows of the entries.
        values: (P, H), or as many rows as ``source`` refers to; one-dimensional for a bias.
        num_rows: Number of rows of the parameter.
        scale: (P,) factors; all 1 if None.
        source: (P,) rows of ``values``; entry p's is row p if None.

    Returns:
        A sparse tensor in the dtype of ``values``. It is not marked as coalesced, since the rows
        beyond ``rows.count`` repeat an id; their values are zero.
    """
    values = values.contiguous()
    most, entries = rows.ids.shape[0], rows.order.shape[0]
    width = values.shape[1:].numel()
    sums = values.new_zeros(most, *values.shape[1:])
    if entries and most:
        block, chunks = min(1024, block_of(width)), triton.cdiv(entries, _CHUNK)
        partial = torch.empty(chunks, width, dtype=sums_of(values), device=values.device)
        grid, warps = (chunks, triton.cdiv(width, block)), warps_for(block)
        of_runs = rows.place, sums, partial, entries, most, width
        _sum_runs[grid](
            *of_runs, rows.order, values, values if scale is None else packed(scale),
            rows.order if source is None else packed(source),
            scale is not None, source is not None, _CHUNK, block, num_warps=warps,
        )  # fmt: skip
        if chunks > 1:
            _join_runs[grid](*of_runs, _CHUNK, 16, block, num_warps=warps)
    return with_count(rows.ids, sums, num_rows, rows.count)


def with_count(ids: Tensor, values: Tensor, num_rows: int, count: Tensor) -> Tensor:
    """A sparse tensor that records its number of distinct rows, even when stored as a ``.grad``."""
    # When torch stores the gradient, it keeps nothing of the indices but their storage.
    ids.untyped_storage().distinct_count = count  # type: ignore[attr-defined]
    shape = (num_rows, *values.shape[1:])
    return torch.sparse_coo_tensor(ids.unsqueeze(0), values, shape, check_invariants=False)


@triton.jit
def _sum_runs(
    PLACE, SUMS, PARTIAL, entries, most, width,
    ORDER, VALUES, SCALE, SOURCE,
    SCALED: tl.constexpr, SHARED: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum the runs of one chunk: into their rows if they begin here, otherwise into ``PARTIAL``."""
    chunk = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    dtype = PARTIAL.dtype.element_ty
    first = chunk * CHUNK
    run = tl.load(PLACE + first)
    began_before = 0
    if chunk > 0:
        began_before = (tl.load(PLACE + first - 1) == run).to(tl.int32)
    total = tl.zeros((BLOCK,), dtype)
    for i in range(first, tl.minimum(first + CHUNK, entries)):
        place = tl.load(PLACE + i)
        if place != run:
            here = inside & (run < most)
            to = run.to(tl.int64) * width + columns
            tl.store(SUMS + to, total.to(SUMS.dtype.element_ty), mask=here & (began_before == 0))
            partial = chunk.to(tl.int64) * width + columns
            tl.store(PARTIAL + partial, total, mask=inside & (began_before == 1))
            total = tl.zeros((BLOCK,), dtype)
            run = place
            began_before = 0
        entry = tl.load(ORDER + i)
        source = entry.to(tl.int64)
        if SHARED:
            source = tl.load(SOURCE + entry).to(tl.int64)
        value = tl.load(VALUES + source * width + columns, mask=inside, other=0.0)
        value = value.to(dtype)
        if SCALED:
            value *= tl.load(SCALE + entry).to(dtype)
        total += value
    here = inside & (run < most)
    to = run.to(tl.int64) * width + columns
    tl.store(SUMS + to, total.to(SUMS.dtype.element_ty), mask=here & (began_before == 0))
    partial = chunk.to(tl.int64) * width + columns
    tl.store(PARTIAL + partial, total, mask=inside & (began_before == 1))


@triton.jit
def _join_runs(
    PLACE, SUMS, PARTIAL, entries, most, width,
    CHUNK: tl.constexpr, AT_ONCE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum all parts of a run that began in the previous chunk and continues in this one."""
    chunk = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    if chunk > 0:
        run = tl.load(PLACE + chunk * CHUNK)
        begins = (run < most) & (tl.load(PLACE + chunk * CHUNK - 1) == run)
        if chunk > 1:
            begins = begins & (tl.load(PLACE + (chunk - 1) * CHUNK - 1) != run)
        if begins:
            to = run.to(tl.int64) * width + columns
            total = tl.load(SUMS + to, mask=inside, other=0.0).to(PARTIAL.dtype.element_ty)
            part = chunk
            going_on = 1
            while going_on == 1:
                parts = part + tl.arange(0, AT_ONCE)
                there = parts * CHUNK < entries
                there = there & (tl.load(PLACE + parts * CHUNK, mask=there, other=0) == run)
                where = parts.to(tl.int64)[:, None] * width + columns[None, :]
                mask = there[:, None] & inside[None, :]
                total += tl.sum(tl.load(PARTIAL + where, mask=mask, other=0.0), 0)
                going_on = tl.min(there.to(tl.int32), 0)
                part += AT_ONCE
            tl.store(SUMS + to, total.to(SUMS.dtype.element_ty), mask=inside)
