"""Moving tensors between processes, and their gradients back, with torch's ``DTensor``.

Every function here is a collective: all processes of the mesh must call it, in the same order.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard
from torch.nn import functional as F


def shared(value: Tensor, mesh: DeviceMesh) -> Tensor:
    """A tensor that all processes have, and that each uses for a part of a sum.

    Nothing is sent; in the backward, its gradient is summed over the processes.
    """
    return _redistributed(value, mesh, Replicate(), Replicate(), Partial())


def gathered(part: Tensor, mesh: DeviceMesh) -> Tensor:
    """The parts of all processes one after another, which each uses for a part of a sum.

    In the backward, every process gets its own part of the summed gradient.
    """
    return _redistributed(part, mesh, Shard(0), Replicate(), Partial())


def total(part: Tensor, mesh: DeviceMesh) -> Tensor:
    """The sum over processes, whose gradient is the same in each of its parts."""
    return _redistributed(part, mesh, Partial(), Replicate(), Replicate())


def side_by_side(part: Tensor, dim: int, mesh: DeviceMesh) -> Tensor:
    """The parts of all processes along a dimension, for computations that all perform alike."""
    return _redistributed(part, mesh, Shard(dim), Replicate(), Replicate())


def own_part(value: Tensor, mesh: DeviceMesh) -> Tensor:
    """This process's part of a tensor that all have: equal parts of its first dimension."""
    return _redistributed(value, mesh, Replicate(), Shard(0), Shard(0))


def _redistributed(
    value: Tensor, mesh: DeviceMesh, source: Placement, destination: Placement, gradient: Placement
) -> Tensor:
    if not torch.is_grad_enabled():
        value = value.detach()
    distributed = DTensor.from_local(value, mesh, [source], run_check=False)
    if destination != source:
        distributed = distributed.redistribute(placements=[destination])
    return distributed.to_local(grad_placements=[gradient])


def all_reduce_max(number: int, mesh: DeviceMesh) -> int:
    """The maximum of a number over the processes."""
    greatest = torch.tensor(number, device=mesh.device_type)
    dist.all_reduce(greatest, dist.ReduceOp.MAX, mesh.get_group())
    return int(greatest)


def broadcast_from_first(value: Tensor, mesh: DeviceMesh) -> Tensor:
    """The first process's tensor on all processes; ``value`` is overwritten."""
    dist.broadcast(value, group=mesh.get_group(), group_src=0)
    return value


def padded(part: Tensor, length: int) -> Tensor:
    """Pad the first dimension of a tensor with zeros up to a length."""
    return F.pad(part, (0, 0) * (part.dim() - 1) + (0, length - part.shape[0]))


def join_log2_sums(log2_sum: Tensor, parts: Tensor, mesh: DeviceMesh) -> tuple[Tensor, Tensor]:
    """``log2`` of the sum over processes of ``2^log2_sum`` (N,), and the sum of ``parts`` (N,).

    This takes two exchanges: one of the maxima, and one of both sums.
    """
    maximum = log2_sum.clone()
    dist.all_reduce(maximum, dist.ReduceOp.MAX, mesh.get_group())
    sums = torch.stack([(log2_sum - maximum).exp2_(), parts])
    dist.all_reduce(sums, dist.ReduceOp.SUM, mesh.get_group())
    return maximum + sums[0].log2_(), sums[1]
