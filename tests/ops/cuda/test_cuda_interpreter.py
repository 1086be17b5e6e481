"""The guard sees what leaves a tensor, and lets pass what does not."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="of the interpreter")


@triton.jit  # type: ignore[untyped-decorator]
def _copy(FROM, TO, first, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = first + tl.arange(0, BLOCK)
    tl.store(TO + place, tl.load(FROM + place, mask=place < size, other=0.0), mask=place < size)


@pytest.mark.parametrize(
    ("first", "size", "read", "written"),
    [(0, 5, 5, 5), (-1, 5, 5, 5), (0, 6, 5, 7), (0, 6, 7, 5), (0, 0, 0, 0)],
)
def test_what_leaves_a_tensor_is_seen(first: int, size: int, read: int, written: int) -> None:
    memory = torch.zeros(30)  # both lie in it, with room around them
    source, target = memory[5 : 5 + read], memory[15 : 15 + written]
    if first < 0 or size > min(read, written):
        with pytest.raises(Exception, match="beyond the tensors of the kernel"):
            _copy[(1,)](source, target, first, size, BLOCK=8)
    else:
        _copy[(1,)](source, target, first, size, BLOCK=8)
