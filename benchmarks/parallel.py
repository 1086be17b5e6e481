"""Layers sharded over two processes against a single process: ``python -m benchmarks.parallel``.

Memory is the exact peak of a training step: parameters, gradients, Adagrad's state and scratch.
Bytes sent are counted from the exchanges, compared with the cost model, and read off the loopback
device, which also counts anything else the machine sends to itself.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, loss_parallel, parallelize_module
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F

from softmax_bench.layers import create_layer
from softmax_bench.measure import LayerStep, peak_bytes, zipf_counts
from softmax_bench.ops import release_workspace
from softmax_bench.parallel import ParallelOutputLayer, create_parallel_layer
from softmax_bench.parallel.layer import all_processes
from softmax_bench.parallel.processes import joined_processes
from softmax_bench.parallel.traffic import Traffic

CPU = torch.device("cpu")
PROCESSES = 2
NO_CLIPPING = 1e9
"""A bound that is never reached, because the norm here would be that of one process's gradients
only.
"""


@dataclass(frozen=True)
class Options:
    """Sizes."""

    tokens: int
    width: int
    steps: int


@dataclass(frozen=True)
class Line:
    """One layer at one size."""

    kept: int
    """Bytes kept from step to step: parameters and the optimiser's state."""
    step: int
    """Additional bytes at the peak of a step."""
    seconds: float
    sent: float = 0.0
    expected: float | None = None
    on_wire: float = 0.0
    exchanges: int = 0


def main() -> None:
    """Start the processes, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parallel", description=__doc__)
    parser.add_argument("--vocab-sizes", default="10000,100000,300000")
    parser.add_argument("--layers", default="full;sampled;nce", help="separated by semicolons")
    parser.add_argument("--tokens", type=int, default=700)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5, help="of which the median is taken")
    given = parser.parse_args()
    options = Options(given.tokens, given.hidden_size, given.steps)
    sizes = [int(size) for size in given.vocab_sizes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        arguments = (str(Path(folder) / "meeting"), options, sizes, given.layers.split(";"))
        spawn(_process, arguments, nprocs=PROCESSES)


def _process(
    rank: int, meeting: str, options: Options, sizes: list[int], layers: list[str]
) -> None:
    torch.set_num_threads(1)
    with joined_processes(init_method=f"file://{meeting}", rank=rank, world_size=PROCESSES):
        _table(rank, options, sizes, layers)


def _table(rank: int, options: Options, sizes: list[int], layers: list[str]) -> None:
    show = print if rank == 0 else lambda *_: None
    show(f"N = {options.tokens}, H = {options.width}, float32, one thread a process, Adagrad\n")
    show(
        "| V | layer | processes | MB kept | MB at peak | of one | ms per step | kB sent "
        "| cost model | loopback | exchanges |\n| ---: | --- | --- " + "| ---: " * 8 + "|"
    )
    for classes in sizes:
        for spec in layers:
            alone = _in_turn(rank, lambda: _whole(spec, classes, options))  # noqa: B023
            lines = {"2": _divided(spec, classes, options)}
            if spec == "full":
                lines["2, torch's loss_parallel"] = _torch_loss_parallel(classes, options)
            if alone is not None:
                show(_row(classes, spec, "1", alone, alone))
                for processes, line in lines.items():
                    show(_row(classes, spec, processes, line, alone))


def _in_turn(rank: int, measure: Callable[[], Line]) -> Line | None:
    """Measurements of the first process while the others wait."""
    line = measure() if rank == 0 else None
    dist.barrier()
    return line


def _row(classes: int, layer: str, processes: str, line: Line, alone: Line) -> str:
    share = (line.kept + line.step) / (alone.kept + alone.step)
    cells = [
        f"{classes:,}",
        f"`{layer}`",
        processes,
        f"{line.kept / 1e6:.1f}",
        f"{(line.kept + line.step) / 1e6:.1f}",
        f"{share:.0%}",
        f"{1e3 * line.seconds:.0f}",
        f"{line.sent / 1e3:.1f}",
        "-" if line.expected is None else f"{line.expected / 1e3:.1f}",
        f"{line.on_wire / 1e3:.0f}",
        str(line.exchanges),
    ]
    return f"| {' | '.join(cells)} |"


def _whole(spec: str, classes: int, options: Options) -> Line:
    torch.manual_seed(0)
    layer = create_layer(spec, options.width, classes, zipf_counts(classes), sparse=True)
    step = LayerStep(layer, options.tokens, clip_norm=NO_CLIPPING)
    memory = step.memory()
    seconds = statistics.median(_seconds(step) for _ in range(options.steps))
    return Line(memory.parameters + memory.optimizer, memory.peak, seconds)


def _divided(spec: str, classes: int, options: Options) -> Line:
    torch.manual_seed(0)
    layer = create_parallel_layer(spec, options.width, classes, zipf_counts(classes), sparse=True)
    step = LayerStep(layer, options.tokens, clip_norm=NO_CLIPPING)
    memory = step.memory()
    kept = memory.parameters + memory.optimizer
    return _exchanging(step, kept, memory.peak, options, layer)


def _torch_loss_parallel(classes: int, options: Options) -> Line:
    """Torch alone: forward and backward, without its optimiser, whose state is just as large."""
    linear = nn.Linear(options.width, classes)
    style = ColwiseParallel(output_layouts=Shard(1), use_local_output=False)
    parallelize_module(linear, all_processes("cpu"), style)
    hidden = torch.randn(options.tokens, options.width).requires_grad_()
    target = torch.randint(classes, (options.tokens,))

    def step() -> None:
        linear.zero_grad()
        with loss_parallel():
            F.cross_entropy(linear(hidden), target).backward()

    step()
    linear.zero_grad()
    peak = peak_bytes(step, CPU)
    rows = -(-classes // PROCESSES)
    return _exchanging(step, 2 * 4 * rows * (options.width + 1), peak, options)


def _exchanging(
    step: Callable[[], object],
    kept: int,
    peak: int,
    options: Options,
    layer: ParallelOutputLayer | None = None,
) -> Line:
    with Traffic() as traffic:
        step()
    seconds, wire = [], []
    for _ in range(options.steps):
        dist.barrier()
        before = _loopback()
        seconds.append(_seconds(step))
        dist.barrier()
        wire.append(_loopback() - before)
    release_workspace()
    expected = None if layer is None else layer.traffic(options.tokens).bytes
    return Line(
        kept,
        peak,
        statistics.median(seconds),
        traffic.bytes,
        expected,
        min(wire) / PROCESSES,
        traffic.exchanges,
    )


def _seconds(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def _loopback() -> int:
    counters = psutil.net_io_counters(pernic=True)
    return int(counters["lo"].bytes_sent) if "lo" in counters else 0


if __name__ == "__main__":
    main()
