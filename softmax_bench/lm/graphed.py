"""CUDA graphs of training steps, which launch all kernels of a step at once."""

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
"""Consecutive eager calls with operands of the same shapes before one is captured."""


def why_no_graph(layer: OutputLayer) -> str:
    """Why a CUDA graph cannot hold training steps of this layer; empty if it can."""
    device = next(layer.parameters()).device
    if device.type != "cuda":
        return f"the device is {device}"
    return "" if layer.capturable else f"{layer.name} makes decisions on the host in every step"


class Graphed:
    """A function of CUDA tensors that runs as a CUDA graph once its operands keep their shapes.

    The first calls run eagerly, on a side stream: they are the warm-up that a capture needs. Then
    the function is captured, and replayed from there on: operands are copied into the graph's
    inputs, and results out of its outputs. Calls with other shapes, such as that of the last window
    of a text, run eagerly; if they keep coming, their graph replaces the first.

    Every replay draws new random numbers. A function that synchronises with the device cannot be
    captured: it keeps running eagerly, and the reason is logged. A function that makes decisions by
    the state of the *host* must not be graphed: each replay repeats what was captured.

    Args:
        function: Takes and returns tensors, None and tuples of these. Other arguments, such as a
            learning rate, must be comparable; each of their values has a graph of its own.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._stream = torch.cuda.Stream()
        self._last: Any = None
        self._alike = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._captured: Any = None
        self._inputs: Any = None
        self._outputs: Any = None
        self.impossible = ""
        """Why the function could not be captured; empty unless that was tried."""

    def __call__(self, *operands: Any) -> Any:
        """The function's results."""
        shapes = _map(lambda x: (x.shape, x.dtype), operands)
        self._alike = self._alike + 1 if shapes == self._last else 1
        self._last = shapes
        if self._alike > WARM_UP and shapes != self._captured and not self.impossible:
            self._capture(operands, shapes)
        if self._graph is None or shapes != self._captured:
            with self._on_side_stream():
                return self._function(*operands)
        _map(lambda own, x: own.copy_(x, non_blocking=True), self._inputs, operands)
        self._graph.replay()
        return _map(Tensor.clone, self._outputs)

    def _capture(self, operands: Any, shapes: Any) -> None:
        """Record the function's kernels without running them."""
        self._graph = self._captured = self._outputs = None  # frees the memory of the graph before
        self._inputs = _map(Tensor.clone, operands)
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        drawn = generator.clone_state()
        try:
            # torch does not restore the current stream if a capture fails, hence the outer context.
            with torch.cuda.stream(self._stream), torch.cuda.graph(graph, stream=self._stream):
                self._outputs = self._function(*self._inputs)
        except RuntimeError as error:
            self.impossible = f"{type(error).__name__}: {error}"
            _log.warning("steps run without a CUDA graph: %s", self.impossible)
            generator.graphsafe_set_state(drawn)  # nor does it end the generator's capture
        else:
            self._graph, self._captured = graph, shapes

    @contextmanager
    def _on_side_stream(self) -> Iterator[None]:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)


def _map(function: Callable[..., Any], *trees: Any) -> Any:
    """Apply ``function`` to the tensors in nested tuples; other leaves stay as they are."""
    first = trees[0]
    if isinstance(first, tuple):
        return tuple(_map(function, *parts) for parts in zip(*trees, strict=True))
    return function(*trees) if isinstance(first, Tensor) else first
