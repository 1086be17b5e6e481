"""What a training step costs one of P processes: products, memory moved, bytes sent.

The layers answer ``cost`` and ``traffic`` with these formulas, and :mod:`softmax_bench.parallel.
plan` plans sizes with them that no layer was made for.

Bytes sent are those of the ring algorithms: a process sends each of the P parts of a tensor on to
its neighbour, once to spread it and once to sum it (Patarasu & Yuan 2009). No algorithm that sums
within the processes sends less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from softmax_bench.layers import Cost

ID_BYTES = 8
"""Of a class id."""


def all_reduce(size: float, processes: int) -> float:
    """Bytes that each process sends to have ``size`` bytes summed on all of them."""
    return 2 * size * (processes - 1) / processes


def reduce_scatter(size: float, processes: int) -> float:
    """Bytes that each process sends to have a P-th of the sum of ``size`` bytes on each."""
    return size * (processes - 1) / processes


def all_gather(own_size: float, processes: int) -> float:
    """Bytes that each process sends to have the ``own_size`` bytes of every process on all."""
    return own_size * (processes - 1)


def broadcast(size: float, processes: int) -> float:
    """Bytes that a process sends, on average, to have ``size`` bytes of one on all of them."""
    return size * (processes - 1) / processes


@dataclass(frozen=True)
class Step:
    """A training step of an output layer that is divided over processes."""

    tokens: int
    """Targets N of the step, of all processes together."""
    rows: int
    """Classes of the process."""
    width: int
    """Size H of a hidden state."""
    processes: int
    divided: bool
    """Whether each process has hidden states of its own, rather than all the same."""
    bias: bool = True
    number_bytes: int = 4
    """Of a parameter, and of a number in a hidden state."""
    sum_bytes: int = 4
    """Of a sum of such numbers."""

    @property
    def parameters(self) -> int:
        """Numbers in the rows of a process."""
        return self.rows * (self.width + self.bias)


def full(step: Step) -> Cost:
    """Three products of all hidden states with the rows of one process."""
    rows, width = step.rows, step.width
    return Cost(
        flops=6.0 * step.tokens * rows * width,
        bytes=step.number_bytes * (2.0 * rows * width + 2.0 * step.tokens * width),
        parameters=step.parameters,
        rows_touched=rows,
    )


def sampled(step: Step, samples: int, *, learned: bool = False) -> Cost:
    """Three products with one process's share of the sample, and its share of the targets.

    ``learned`` adds one parameter, ``log_z``.
    """
    share = step.tokens * (samples + 1) / step.processes
    rows = min(step.rows, math.ceil((samples + step.tokens) / step.processes))
    return Cost(
        flops=6.0 * share * step.width,
        bytes=step.number_bytes * (3.0 * rows * step.width + 2.0 * step.tokens * step.width),
        parameters=step.parameters + learned,
        rows_touched=rows,
    )


def hidden_traffic(step: Step) -> float:
    """Hidden states to all processes where these have their own, and the sum of their gradients."""
    hidden = float(step.tokens * step.width * step.number_bytes)
    if not step.divided:
        return all_reduce(hidden, step.processes)
    own_tokens = -(-step.tokens // step.processes)
    of_token = step.width * step.number_bytes + ID_BYTES + step.sum_bytes
    counting = all_reduce(ID_BYTES, step.processes) + all_reduce(step.sum_bytes, step.processes)
    return (
        all_gather(own_tokens * of_token, step.processes)
        + reduce_scatter(hidden, step.processes)
        + counting
    )


def softmax_traffic(step: Step) -> float:
    """Beside the hidden states the maximum, the sum and the target's score of each token."""
    return hidden_traffic(step) + all_reduce(3 * step.tokens * step.sum_bytes, step.processes)


def logistic_traffic(step: Step, *, learned: bool) -> float:
    """Beside the hidden states the loss, and the gradient of ``log_z`` where it is learned."""
    loss = all_reduce(step.sum_bytes, step.processes)
    return hidden_traffic(step) + loss + learned * all_reduce(step.number_bytes, step.processes)


def noise_traffic(step: Step, draws: int) -> float:
    """The ids of the classes that the first process drew."""
    return broadcast(ID_BYTES * draws, step.processes)
