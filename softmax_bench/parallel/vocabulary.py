"""The assignment of classes to processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError


class ShardedClasses:
    """Classes assigned round-robin to the processes of a mesh: class j to process j mod P.

    If ids are sorted by frequency, contiguous ranges, as in ``ColwiseParallel``, would give nearly
    all frequent classes, and nearly all the work of a sampled loss, to one process. Round-robin
    gives every process its share of them, and sizes differ by at most one class. In ``DTensor``'s
    terms, a table of V rows is seen as (ceil(V / P), P) rows whose second dimension is sharded.

    Args:
        num_classes: Number V of classes.
        mesh: The P processes, in one dimension.

    Raises:
        SoftmaxBenchError: The mesh has more than one dimension, or more processes than classes.
    """

    def __init__(self, num_classes: int, mesh: DeviceMesh) -> None:
        if mesh.ndim != 1:
            raise SoftmaxBenchError(
                f"the classes need a mesh of one dimension, not {mesh.ndim}: give one of its "
                "dimensions, mesh['name']"
            )
        if num_classes < mesh.size():
            raise SoftmaxBenchError(
                f"{num_classes} classes cannot be sharded over {mesh.size()} processes: each needs "
                "at least one"
            )
        self.num_classes = num_classes
        self.mesh = mesh
        self.size = mesh.size()
        self.rank = mesh.get_local_rank()
        self.num_rows = len(range(self.rank, num_classes, self.size))
        """Number of classes of this process."""
        self.max_rows = -(-num_classes // self.size)
        """Largest number of classes of any process."""

    def __deepcopy__(self, memo: dict[int, Any]) -> ShardedClasses:
        return self  # processes cannot be copied; a copied layer is sharded over the same ones

    def shard(self, table: Tensor) -> Tensor:
        """This process's rows of a table of all classes (V, ...)."""
        return table[self.rank :: self.size]

    def collect(self, rows: Tensor) -> Tensor:
        """The table of all classes (V, ...) on every process, collected from all."""
        padding = (0, 0) * (rows.dim() - 1) + (0, self.max_rows - self.num_rows)
        divided = DTensor.from_local(
            F.pad(rows, padding).unsqueeze(1), self.mesh, [Shard(1)], run_check=False
        )
        return divided.full_tensor().flatten(0, 1)[: self.num_classes]

    def classes(self, rows: Tensor) -> Tensor:
        """Class ids of this process's rows."""
        return rows * self.size + self.rank

    def located(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Whether this process has each of ``classes`` (N,), and its local row, 0 if not."""
        here = classes % self.size == self.rank
        rows = torch.div(classes, self.size, rounding_mode="floor")
        return here, torch.where(here, rows, 0)

    def owned(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Positions of those ``classes`` (N,) that this process has, and their local rows."""
        here, rows = self.located(classes)
        positions = here.nonzero().squeeze(1)
        return positions, rows[positions]
