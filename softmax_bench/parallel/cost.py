"""The cost of a training step for one of P processes: products, memory moved, bytes sent.

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
from softmax_bench.layers.cost import ID_BYTES
from softmax_bench.ops.cpu.softmax_loss import token_blocks


@dataclass(frozen=True)
class Sent:
    """What one process sends."""

    bytes: float
    exchanges: int = 1
    """How often all processes wait for each other."""

    def __add__(self, other: Sent) -> Sent:
        return Sent(self.bytes + other.bytes, self.exchanges + other.exchanges)


NOTHING = Sent(0, 0)


def all_reduce(size: float, processes: int) -> Sent:
    """Sum ``size`` bytes on all processes."""
    return Sent(2 * size * (processes - 1) / processes)


def reduce_scatter(size: float, processes: int) -> Sent:
    """Leave a P-th of the sum of ``size`` bytes on each process."""
    return Sent(size * (processes - 1) / processes)


def all_gather(own_size: float, processes: int) -> Sent:
    """Send the ``own_size`` bytes of every process to all."""
    return Sent(own_size * (processes - 1))


def broadcast(size: float, processes: int) -> Sent:
    """Send ``size`` bytes from one process to all: the average that each of them sends."""
    return Sent(size * (processes - 1) / processes)


@dataclass(frozen=True)
class Step:
    """A training step of an output layer that is sharded over processes."""

    tokens: int
    """Targets N of the step, for all processes together."""
    rows: int
    """Number of classes of the process."""
    width: int
    """Size H of a hidden state."""
    processes: int
    divided: bool
    """Whether each process has its own hidden states, rather than all the same."""
    bias: bool = True
    number_bytes: int = 4
    """Bytes of a parameter, and of a number in a hidden state."""
    sum_bytes: int = 4
    """Bytes of a sum of such numbers."""

    @property
    def parameters(self) -> int:
        """Numbers in the rows of a process."""
        return self.rows * (self.width + self.bias)


def full(step: Step, *, products: int = 3) -> Cost:
    """Three products of all hidden states with the rows of one process, or as many as given."""
    rows, width = step.rows, step.width
    return Cost(
        flops=2.0 * products * step.tokens * rows * width,
        bytes=step.number_bytes * (2.0 * rows * width + 2.0 * step.tokens * width),
        parameters=step.parameters,
        rows_touched=rows,
        gradient_bytes=step.number_bytes * step.parameters,
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
        gradient_bytes=rows
        * (step.number_bytes * (step.width + step.bias) + ID_BYTES * (1 + step.bias)),
    )


def hidden_traffic(step: Step, *, weighted: bool = True) -> Sent:
    """Hidden states to all processes, if each has its own, and the sum of their gradients.

    ``weighted`` says whether the weights of tokens are sent with them.
    """
    processes = step.processes
    hidden = float(step.tokens * step.width * step.number_bytes)
    if not step.divided:
        return all_reduce(hidden, processes)
    own_tokens = -(-step.tokens // processes)
    return (
        all_reduce(step.sum_bytes, processes)  # the number of targets
        + all_reduce(ID_BYTES, processes)  # the largest number on any process
        + all_gather(own_tokens * step.width * step.number_bytes, processes)
        + all_gather(own_tokens * ID_BYTES, processes)
        + (all_gather(own_tokens * step.sum_bytes, processes) if weighted else NOTHING)
        + reduce_scatter(hidden, processes)
    )


def softmax_traffic(step: Step, rows: int) -> Sent:
    """Besides the hidden states, the maximum, the sum and the target's score of each token.

    Args:
        step: The step.
        rows: Number of rows that a process scores, which determines the blocks of tokens.
    """
    sent = hidden_traffic(step)
    for block in token_blocks(step.tokens, rows):
        size = (block.stop - block.start) * step.sum_bytes
        sent += all_reduce(size, step.processes) + all_reduce(2 * size, step.processes)
    return sent


def sums_traffic(step: Step, *, numbers: int) -> Sent:
    """Besides the hidden states, the maximum of each token's scores, and its sums.

    Args:
        step: The step.
        numbers: Sums of a token's scores, the normaliser and the target's score among them.
    """
    processes, of_token = step.processes, step.sum_bytes * numbers
    sent = hidden_traffic(step, weighted=False)
    sent += all_reduce(step.tokens * step.sum_bytes, processes)
    sent += all_reduce(step.tokens * of_token, processes)
    if step.divided:  # each process weights its own tokens
        own_tokens = -(-step.tokens // processes)
        sent += all_gather(own_tokens * of_token, processes) + all_reduce(step.sum_bytes, processes)
    return sent


def logistic_traffic(step: Step, *, learned: bool) -> Sent:
    """Besides the hidden states, the loss, and the gradient of ``log_z`` if it is learned."""
    sent = hidden_traffic(step) + all_reduce(step.sum_bytes, step.processes)
    return sent + (all_reduce(step.number_bytes, step.processes) if learned else NOTHING)


def noise_traffic(step: Step, draws: int) -> Sent:
    """The ids of the classes that the first process drew, if any."""
    return broadcast(ID_BYTES * draws, step.processes) if draws else NOTHING
