"""Bytes that a process sends, counted from the exchanges it actually makes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.parallel import cost

_FORMULA: dict[str, Callable[[float, int], cost.Sent]] = {
    "all_reduce": cost.all_reduce,
    "all_gather_into_tensor": cost.all_gather,
    "reduce_scatter_tensor": cost.reduce_scatter,
    "allreduce_": cost.all_reduce,
    "_allgather_base_": cost.all_gather,
    "_reduce_scatter_base_": cost.reduce_scatter,
    "broadcast_": cost.broadcast,
}
_SILENT = {"wait_tensor", "_wrap_tensor_autograd"}


class Traffic(TorchDispatchMode):
    """A context that counts every exchange of this process, by any library on torch.

    ``torch.distributed.tensor.debug.CommDebugMode`` counts exchanges; this counts their bytes, as
    sent by a ring (:mod:`softmax_bench.parallel.cost`). All exchanges are assumed to be between all
    processes of the default group.

    Raises:
        SoftmaxBenchError: An exchange was made whose bytes are not known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent: defaultdict[str, float] = defaultdict(float)
        """Bytes sent by kind of exchange."""
        self.exchanges = 0

    @property
    def bytes(self) -> float:
        """Bytes sent in all."""
        return sum(self.sent.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count an exchange, then make it."""
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it is first decomposed into the exchanges that it needs
        if func.namespace in ("c10d", "_c10d_functional"):
            self._count(func.overloadpacket.__name__, args)
        return func(*args, **(kwargs or {}))

    def _count(self, kind: str, args: tuple[Any, ...]) -> None:
        if kind in _SILENT:
            return
        if kind not in _FORMULA:
            raise SoftmaxBenchError(f"cannot tell how many bytes {kind} sends")
        # The second of the two tensors of torch's in-place exchanges is the input.
        tensors = [a for a in _flat(args) if isinstance(a, Tensor)]
        sent = tensors[-1]
        self.sent[kind] += _FORMULA[kind](sent.nbytes, dist.get_world_size()).bytes
        self.exchanges += 1


def _flat(args: Any) -> list[Any]:
    if isinstance(args, list | tuple):
        return [one for arg in args for one in _flat(arg)]
    return [args]
