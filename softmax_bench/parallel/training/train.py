"""Training steps of the shared language model on several processes, and exact evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.lm import IGNORED, Optimizer, Streams
from softmax_bench.parallel.training.clip import clip_grad_norm
from softmax_bench.parallel.training.data import DataParallel


def own_windows(text: Streams, length: int, mesh: DeviceMesh) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of the windows of a text's streams, divided as evenly as possible.

    Raises:
        SoftmaxBenchError: There are fewer streams than processes.
    """
    size, rank = mesh.size(), mesh.get_local_rank()
    if text.batch_size < size:
        raise SoftmaxBenchError(
            f"{text.batch_size} streams of text are too few for {size} processes: choose a batch "
            "size of at least one stream per process"
        )
    for inputs, targets in text.windows(length):
        yield inputs.tensor_split(size, 1)[rank], targets.tensor_split(size, 1)[rank]


def train_steps(
    parallel: DataParallel,
    optimizer: Optimizer,
    text: Streams,
    *,
    window: int,
    steps: int,
    clip_norm: float,
    on_step: Callable[[float], None] = lambda loss: None,
) -> list[float]:
    """Train for a number of steps, with as many passes over this process's streams as necessary.

    Args:
        parallel: The model, trained in place.
        optimizer: Over the model's parameters, the same on all processes.
        text: The whole text, of which each process takes some streams.
        window: Time steps through which gradients flow back.
        steps: Number of steps.
        clip_norm: Maximum joint norm of all gradients.
        on_step: Called after each step with the mean loss over all processes.

    Returns:
        The mean loss of every step over all processes.
    """
    model = parallel.model.train()
    losses: list[float] = []
    while len(losses) < steps:
        state = None
        for inputs, targets in own_windows(text, window, parallel.mesh):
            optimizer.zero_grad()
            loss, state = model(inputs, targets, state)
            joint = parallel.backward(loss, int((targets != IGNORED).sum()))
            clip_grad_norm(model, clip_norm)
            optimizer.step()
            losses.append(float(joint))
            on_step(losses[-1])
            if len(losses) == steps:
                break
    return losses


@torch.no_grad()
def nats(parallel: DataParallel, text: Streams, window: int) -> float:
    """Mean exact negative log-probability of a text, of which each process reads some streams."""
    model = parallel.model.eval()
    summed = torch.zeros(2, dtype=torch.float64, device=text.device)
    state = None
    for inputs, targets in own_windows(text, window, parallel.mesh):
        hidden, state = model.hidden(inputs, state)
        kept = targets != IGNORED
        log_prob = model.layer.target_log_prob(hidden[kept], targets[kept])
        summed += torch.stack([-log_prob.double().sum(), kept.sum().double()])
    dist.all_reduce(summed, group=parallel.mesh.get_group())
    return float(summed[0] / summed[1])
