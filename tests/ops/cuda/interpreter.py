"""What tests need of Triton's interpreter besides: a guard, and products of bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import Tensor


def guard(patch: pytest.MonkeyPatch) -> None:
    """Let kernels fail that read or write beyond their tensors.

    A mask that lets one address too many through would else be seen only where a GPU faults, or
    where what lies behind a tensor happens to matter.
    """
    from triton.runtime.interpreter import GridExecutor, InterpreterBuilder

    inside: list[tuple[int, int]] = []
    prepare = GridExecutor._init_args_hst

    def prepared(self: Any, args: Any, kwargs: Any) -> Any:
        given = prepare(self, args, kwargs)
        inside[:] = [_extent(x) for x in (*given[0], *given[1].values()) if isinstance(x, Tensor)]
        return given

    def guarded(access: Callable[..., Any], mask_at: int) -> Callable[..., Any]:
        def run(self: Any, pointers: Any, *rest: Any) -> Any:
            mask = np.broadcast_to(rest[mask_at].data, np.shape(pointers.data)).astype(bool)
            used = np.asarray(pointers.data)[mask].astype(np.uint64)
            if used.size:
                low = int(used.min())
                high = int(used.max()) + pointers.get_element_ty().primitive_bitwidth // 8
                if not any(begin <= low and high <= end for begin, end in inside):
                    raise IndexError(f"{access.__name__}: beyond the tensors of the kernel")
            return access(self, pointers, *rest)

        return run

    patch.setattr(GridExecutor, "_init_args_hst", prepared)
    for name, mask_at in (("create_masked_load", 0), ("create_masked_store", 1)):
        access = getattr(InterpreterBuilder, name)
        patch.setattr(InterpreterBuilder, name, guarded(access, mask_at))


def multiply_bfloat16(patch: pytest.MonkeyPatch) -> None:
    """Let ``tl.dot`` multiply numbers, where the interpreter multiplies their bit patterns.

    See https://github.com/triton-lang/triton/issues/11584.
    """
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle, _convert_float

    dot = InterpreterBuilder.create_dot

    def widened(operand: Any) -> Any:
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        numbers = _convert_float(operand.data, tl.bfloat16, tl.float32, None).view(np.float32)
        return TensorHandle(numbers, tl.float32)

    def run(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widened(a), widened(b), *rest)

    patch.setattr(InterpreterBuilder, "create_dot", run)


def _extent(tensor: Tensor) -> tuple[int, int]:
    """First byte of a tensor, and the one after its last."""
    begin = tensor.data_ptr()
    if not tensor.numel():
        return begin, begin
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (last + 1) * tensor.element_size()
