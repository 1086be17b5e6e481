"""How ``torch.compile`` runs the public methods of a layer, and what their errors say."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from softmax_bench.layers.memory_hint import add_memory_hint
from softmax_bench.ops import untraced
from softmax_bench.ops.autograd import called_by

if TYPE_CHECKING:
    from softmax_bench.layers.base import OutputLayer

P = ParamSpec("P")
R = TypeVar("R")


def traced_if_traceable(
    method: Callable[Concatenate[OutputLayer, P], R],
) -> Callable[Concatenate[OutputLayer, P], R]:
    """Keep ``method`` out of a compiled model's graph unless its layer is ``traceable``."""

    def named(self: OutputLayer, *args: P.args, **kwargs: P.kwargs) -> R:
        with called_by(type(self).__name__):
            return method(self, *args, **kwargs)

    opaque = untraced(named)

    @functools.wraps(method)
    def run(self: OutputLayer, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            traced = self.traceable and torch.compiler.is_compiling()
            return (method if traced else opaque)(self, *args, **kwargs)
        except RuntimeError as error:
            hidden = args[0] if args else kwargs["hidden"]
            assert isinstance(hidden, Tensor)
            add_memory_hint(error, type(self).__name__, self._saving(), hidden, self.num_classes)
            raise

    return run
