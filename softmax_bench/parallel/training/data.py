"""Data-parallel training: replicas of a model that learn as one does from the tokens of all."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.lm import LanguageModel
from softmax_bench.lm.optimizers import row_gradient
from softmax_bench.ops import distinct, row_sparse
from softmax_bench.parallel.exchange import broadcast_from_first, padded, side_by_side
from softmax_bench.parallel.layer import ParallelOutputLayer, all_processes


class DataParallel:
    """Replicas of a model on each process, with the same parameters after every step.

    The gradient is that of the mean loss over the targets of all processes, however many each of
    them has. Dense gradients are summed. The rows of row-sparse ones are gathered and summed, so
    that they stay row-sparse and coalesced, at a cost in proportion to the rows.

    If the model's output layer is sharded over the same processes (with ``tokens="divided"``), each
    keeps its own rows of it, whose gradients are already complete.

    A sampled layer that is not sharded draws on each process with that process's generator. With
    equal seeds, they draw what a single process would; with different seeds, more classes in all.

    Args:
        model: The model; those of the first process overwrite its parameters and buffers.
        mesh: The processes, in one dimension (default: all of the default group).

    Raises:
        SoftmaxBenchError: No processes have been started, or the model's layer is sharded over
            processes that should all have the same tokens.
    """

    def __init__(self, model: LanguageModel, mesh: DeviceMesh | None = None) -> None:
        layer = model.layer if isinstance(model.layer, ParallelOutputLayer) else None
        if layer is not None and layer.tokens != "divided":
            raise SoftmaxBenchError(
                "in a data-parallel model every process has its own tokens: create the layer with "
                "tokens='divided'"
            )
        self.model = model
        self.mesh = all_processes(next(model.parameters()).device) if mesh is None else mesh
        self._loss_is_joint = layer is not None
        of_layer = set() if layer is None else {id(p) for p in layer.parameters()}
        self._copied = [p for p in model.parameters() if id(p) not in of_layer]
        sparse = {id(p) for p in model.row_sparse_parameters()}
        self._dense = [p for p in self._copied if id(p) not in sparse]
        self._row_sparse = [p for p in self._copied if id(p) in sparse]
        own_rows = set() if layer is None else {id(p) for p in layer.divided_parameters()}
        with torch.no_grad():
            for value in (*model.parameters(), *model.buffers()):
                if id(value) not in own_rows:
                    broadcast_from_first(value.data, self.mesh)

    def backward(self, loss: Tensor, num_targets: int) -> Tensor:
        """Compute gradients of the mean loss over all processes, in every replica.

        Args:
            loss: The loss of this process's replica: the mean over its own targets, or over all
                targets if the output layer is sharded.
            num_targets: Number of targets of this process, without ignored ones.

        Returns:
            The mean loss over all processes.
        """
        if self._loss_is_joint:
            loss.backward()
            joint = loss.detach()
        else:
            number = torch.tensor(float(num_targets), dtype=loss.dtype, device=loss.device)
            in_all = number.clone()
            dist.all_reduce(in_all, group=self.mesh.get_group())
            part = loss * (number / in_all.clamp(min=1))
            part.backward()
            joint = part.detach().clone()
            dist.all_reduce(joint, group=self.mesh.get_group())
        sum_dense(self._dense, self.mesh)
        sum_rows(self._row_sparse, self.mesh)
        return joint

    def whole_state(self) -> dict[str, Tensor]:
        """The state dict of the single-process model; all processes must call this."""
        state = self.model.state_dict()
        if isinstance(self.model.layer, ParallelOutputLayer):
            state |= {f"layer.{n}": v for n, v in self.model.layer.whole_state().items()}
        return state


@torch.no_grad()
def sum_dense(parameters: Iterable[nn.Parameter], mesh: DeviceMesh) -> None:
    """Sum dense gradients over processes in one exchange; a missing one counts as zeros."""
    by_type: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        by_type.setdefault(parameter.dtype, []).append(parameter)
    for alike in by_type.values():
        gradients = [p.grad for p in alike if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat, group=mesh.get_group())
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def sum_rows(parameters: Iterable[nn.Parameter], mesh: DeviceMesh) -> None:
    """Sum row-sparse gradients over processes, coalesced; a missing one has no rows.

    Every process receives the rows of all, padded to the largest number on any, and adds them in
    the same order, so that the sums are bitwise the same.
    """
    parameters = list(parameters)
    if not parameters:
        return
    device = parameters[0].device
    gradients = [_rows_and_values(parameter) for parameter in parameters]
    counts = torch.tensor([len(rows) for rows, _ in gradients], device=device)
    of_processes = side_by_side(counts.unsqueeze(0), 0, mesh)
    for place, (parameter, (rows, values)) in enumerate(zip(parameters, gradients, strict=True)):
        count = of_processes[:, place].unsqueeze(1)
        length = int(count.max())
        there = torch.arange(length, device=device) < count
        all_rows = side_by_side(padded(rows, length).unsqueeze(0), 0, mesh)[there]
        all_values = side_by_side(padded(values, length).unsqueeze(0), 0, mesh)[there]
        touched, where = distinct(all_rows)
        summed = values.new_zeros(len(touched), *values.shape[1:])
        summed.index_add_(0, where, all_values)
        parameter.grad = row_sparse(touched, summed, parameter.shape[0])


def _rows_and_values(parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
    if parameter.grad is None:
        rows = torch.empty(0, dtype=torch.int64, device=parameter.device)
        return rows, parameter.new_empty(0, *parameter.shape[1:])
    return row_gradient(parameter)
