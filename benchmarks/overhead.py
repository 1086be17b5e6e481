"""The overhead of measuring: ``python -m benchmarks.overhead``.

Two things are timed. *Inside* is what clocks add to the reported time of a step, measured by
running the same code on a layer, a gradient and an optimiser that do nothing. *Between* is the time
the harness needs from one step to the next (shuffling, storing samples, checking whether intervals
are narrow enough). No reported time includes it, but a run takes longer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from torch import Tensor, nn

from benchmarks.written import write_results
from softmax_bench.layers import create_layer
from softmax_bench.layers.exact.full import FullSoftmax
from softmax_bench.measure import LayerStep, interleave, zipf_counts
from softmax_bench.measure.timing import Phases


class _Nothing(nn.Module):
    """Stands in for a sampler, a loss and an optimiser."""

    def propose(self) -> None:
        """The method that a stopwatch is put on."""

    def backward(self) -> None:
        """No gradient."""

    def step(self) -> None:
        """No update."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """No gradients to drop."""


class EmptyStep(LayerStep):
    """A step that does nothing but measure itself, including one draw."""

    def __init__(self) -> None:
        layer = FullSoftmax(1, 1)
        layer.add_module("nothing", _Nothing())
        super().__init__(layer, 1, encoder=None)
        self._nothing: _Nothing = layer.get_submodule("nothing")  # type: ignore[assignment]
        self.optimizer = self._nothing  # type: ignore[assignment]

    def forward(self) -> Tensor:
        """Draw, and return something that has a ``backward``."""
        self._nothing.propose()
        return self._nothing  # type: ignore[return-value]

    def clip(self) -> None:
        """Nothing."""


def between(step: LayerStep, seconds: float) -> tuple[float, int]:
    """Seconds from one step to the next, and how many steps there were."""
    own = 0.0
    steps = 0
    rounds: list[tuple[float, float, int]] = []

    def counted() -> Phases:
        nonlocal own, steps
        begin = time.perf_counter()
        phases = step()
        own += time.perf_counter() - begin
        steps += 1
        return phases

    interleave(
        {"A": counted, "B": counted},
        budget_seconds=seconds,
        target_width=1e-6,
        on_round=lambda share: rounds.append((time.perf_counter(), own, steps)),
    )
    # The warm-up and the summary at the end are left out, since they occur once and not for each
    # step.
    (begin, own_then, before), (end, own_now, after) = rounds[0], rounds[-1]
    return (end - begin - own_now + own_then) / (after - before), after - before


def lines(seconds: float, sizes: list[int]) -> Iterator[dict[str, float | str]]:
    """One row per layer."""
    empty = EmptyStep()
    for classes in sizes:
        for spec in ("hierarchical", "sampled(num_samples=64)", "nce(num_samples=64)", "full"):
            for tokens in (20, 700):
                layer = create_layer(spec, 256, classes, zipf_counts(classes), sparse=True)
                step = LayerStep(layer, tokens)
                timed = interleave({"empty": empty, "layer": step}, budget_seconds=seconds)
                inside, whole = (timed[name]["step"].median for name in ("empty", "layer"))
                gap, steps = between(step, seconds)
                yield {
                    "layer": spec, "V": classes, "N": tokens, "step_us": 1e6 * whole,
                    "inside_us": 1e6 * inside, "inside": inside / whole,
                    "between_us": 1e6 * gap, "between": gap / whole, "steps": steps,
                }  # fmt: skip


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="budget of one figure")
    parser.add_argument("--vocab-sizes", default="1000,100000")
    parser.add_argument("--out", type=Path, help="folder for overhead.json and table.md")
    options = parser.parse_args()
    console, measured = Console(), []
    table = [
        "| layer | V | N | step us | inside us | inside / step | between us | between / step |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for line in lines(options.seconds, [int(size) for size in options.vocab_sizes.split(",")]):
        measured.append(line)
        table.append(
            f"| {line['layer']} | {line['V']:,} | {line['N']} | {line['step_us']:,.0f} "
            f"| {line['inside_us']:.1f} | {line['inside']:.2%} | {line['between_us']:.0f} "
            f"| {line['between']:.1%} |"
        )
        console.print(table[-1], highlight=False, soft_wrap=True, markup=False)
    worst = np.max([float(line["inside"]) for line in measured])
    console.print(f"The clocks add {worst:.2%} at most to what is reported.", highlight=False)
    write_results(options.out, "overhead", "\n".join(table) + "\n", lines=measured)


if __name__ == "__main__":
    main()
