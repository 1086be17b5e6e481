"""Training steps as CUDA graphs: all kernels of a step are launched together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from softmax_bench.layers import OutputLayer

_log = logging.getLogger(__name__)

WARM_UP = 3
"""Calls with operands of the same shapes, one after another, before a call is captured."""


def why_no_graph(layer: OutputLayer) -> str:
    """What keeps training steps of this layer from being CUDA graphs; "" if nothing does."""
    device = next(layer.parameters()).device
    if device.type != "cuda":
        return f"the device is {device}"
    return "" if layer.capturable else f"in steps of {layer.name} the host decides"


class Graphed:
    """A function on tensors of a GPU that runs as a CUDA graph once its operands keep their shapes.

    The first calls run as they are, on a stream of their own: they are the warm-up that a capture
    needs. Then a call is captured and replayed from there on: operands are copied to where the
    graph reads them, results from where it writes them. Operands of other shapes, such as the last
    window of a text, run as they are, and are captured in place of those before if they stay.

    Random draws are new in each replay. A function that cannot be captured, because it asks the
    device for something, goes on without a graph, and the log says why. One that decides by what
    the *host* remembers must not come here: a replay does what was done when it was captured.

    Args:
        function: Of tensors, of tuples of them, and of whatever else can be compared: a number
            that changes is as good as another shape. Its results are tensors, tuples and None.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._stream = torch.cuda.Stream()
        self._last: Any = None
        self._alike = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._of: Any = None
        self._operands: Any = None
        self._results: Any = None
        self.impossible = ""
        """Why there is no graph, where there can be none."""

    def __call__(self, *operands: Any) -> Any:
        """What the function gives."""
        shapes = _map(lambda x: (x.shape, x.stride(), x.dtype), operands)
        self._alike = self._alike + 1 if shapes == self._last else 1
        self._last = shapes
        if self._alike > WARM_UP and shapes != self._of and not self.impossible:
            self._capture(operands, shapes)
        if self._graph is None or shapes != self._of:
            with self._on_own_stream():
                return self._function(*operands)
        _map(lambda place, x: place.copy_(x, non_blocking=True), self._operands, operands)
        self._graph.replay()
        return _map(Tensor.clone, self._results)

    def _capture(self, operands: Any, shapes: Any) -> None:
        """Record what the function does; nothing of it is done yet."""
        self._graph = self._results = self._of = None  # its memory can be used again
        self._operands = _map(Tensor.clone, operands)
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        drawn = generator.clone_state()
        try:
            # After a capture that failed, torch leaves its stream as the current one.
            with torch.cuda.stream(self._stream), torch.cuda.graph(graph, stream=self._stream):
                self._results = self._function(*self._operands)
        except RuntimeError as error:
            self.impossible = f"{type(error).__name__}: {error}"
            _log.warning("steps go on without a CUDA graph: %s", self.impossible)
            # And the generator as if the capture were going on.
            generator.graphsafe_set_state(drawn)
        else:
            self._graph, self._of = graph, shapes

    @contextmanager
    def _on_own_stream(self) -> Iterator[None]:
        """In order with what comes before and after."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)


def _map(function: Callable[..., Any], *trees: Any) -> Any:
    """``function`` of the tensors in nested tuples; what else is in them stays as it is."""
    first = trees[0]
    if isinstance(first, tuple):
        return tuple(_map(function, *of) for of in zip(*trees, strict=True))
    return function(*trees) if isinstance(first, Tensor) else first
