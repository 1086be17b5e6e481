"""Where a primitive runs: the only place that decides by device.

A file of ``ops`` defines what a primitive computes and how it is differentiated. The file of the
same name in ``cpu`` computes it with torch operations, which run on any device. A file of that name
in ``cuda`` may contain Triton kernels for its functions that are marked :func:`by_device`, with the
same names and arguments. The choice depends on the tensors and not on the process, so that both can
be used side by side.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
_log = logging.getLogger(__name__)


def on_cuda(tensor: Tensor) -> bool:
    """Whether the kernels of ``ops.cuda`` can process this tensor."""
    return tensor.is_cuda and _has_triton()


def by_device(plain: Callable[P, R]) -> Callable[P, R]:
    """Mark a function of ``ops.cpu`` that calls its namesake in ``ops.cuda`` for CUDA tensors.

    The first tensor among the positional arguments decides. What ``ops.cuda`` lacks is left to the
    plain function.
    """

    @functools.wraps(plain)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        first = next(x for x in args if isinstance(x, Tensor))
        return (_namesake(plain) if on_cuda(first) else plain)(*args, **kwargs)

    return run


@functools.cache
def _namesake(plain: Callable[..., Any]) -> Callable[..., Any]:
    name = plain.__module__.replace(".ops.cpu.", ".ops.cuda.")
    if importlib.util.find_spec(name) is None:
        return plain
    return getattr(importlib.import_module(name), plain.__name__, plain)


@functools.cache
def _has_triton() -> bool:
    if importlib.util.find_spec("triton") is not None:
        return True
    _log.warning(
        "Triton is not installed, so CUDA runs the CPU's algorithms, which is far slower: "
        "pip install 'softmax-bench[cuda]'"
    )
    return False
