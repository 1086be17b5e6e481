"""Kernels run where a GPU is; without one in Triton's interpreter, on CPU tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from tests.ops.cuda.interpreter import guard, multiply_bfloat16

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is declared

pytest.importorskip("triton", reason="Triton is not installed: pip install 'softmax-bench[cuda]'")


@pytest.fixture(autouse=True)
def _interpreter() -> Iterator[None]:
    """No kernel of any test reads or writes beyond its tensors."""
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            guard(patch)
            multiply_bfloat16(patch)
            # Programs that only look whether there is work for them take time in the interpreter.
            patch.setattr("softmax_bench.ops.cuda.groups.PROGRAMS", 6)
        yield


@pytest.fixture
def device() -> str:
    """Where the kernels under test run."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def _as_on_cuda(device: str) -> Iterator[None]:
    """CPU tensors are taken for ones on CUDA, so that whole layers run on the kernels."""
    with pytest.MonkeyPatch.context() as patch:
        if device == "cpu":
            for module in ("ops.dispatch", "ops.all_classes", "lm.optimizers"):
                patch.setattr(f"softmax_bench.{module}.on_cuda", lambda tensor: True)
        yield
