"""Clipping by the norm of all gradients, including those of other processes' rows."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from softmax_bench.lm.optimizers import row_gradient
from softmax_bench.parallel.layer import ParallelOutputLayer


@torch.no_grad()
def clip_grad_norm(model: nn.Module, max_norm: float) -> Tensor:
    """Like :func:`softmax_bench.lm.clip_grad_norm`, for a model that may have a sharded layer.

    By its own rows alone, each process would scale by a different factor. Squares are summed in
    float64, so that the factor is bitwise the same on all processes.

    Returns:
        The norm before clipping, over all processes' rows.
    """
    copied = {id(p): p for p in model.parameters() if p.grad is not None}
    device = next(model.parameters()).device
    square = torch.zeros((), dtype=torch.float64, device=device)
    own: list[nn.Parameter] = []
    for layer in model.modules():
        if isinstance(layer, ParallelOutputLayer):
            rows = [copied.pop(id(p)) for p in layer.divided_parameters() if id(p) in copied]
            of_rows = _square_norm(rows, device)
            dist.all_reduce(of_rows, group=layer.mesh.get_group())
            square += of_rows
            own += rows
    norm = (square + _square_norm(copied.values(), device)).sqrt()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for parameter in (*copied.values(), *own):
        stored = _stored(parameter)
        stored.mul_(factor.to(stored.dtype))
    return norm


def _stored(parameter: nn.Parameter) -> Tensor:
    """The numbers of a gradient, without the zeros of a row-sparse one."""
    assert parameter.grad is not None
    return row_gradient(parameter)[1] if parameter.grad.is_sparse else parameter.grad


def _square_norm(parameters: Iterable[nn.Parameter], device: torch.device) -> Tensor:
    norms = [torch.linalg.vector_norm(_stored(p), dtype=torch.float64) for p in parameters]
    zero = torch.zeros((), dtype=torch.float64, device=device)
    return torch.stack([zero, *norms]).square().sum()
