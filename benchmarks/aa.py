"""False alarms and detected slowdowns of the harness: ``python -m benchmarks.aa``.

Each layer is timed against itself (A/A), and against a copy slowed by five per cent, which keeps
the processor busy after every step for a twentieth of the step's time. The three alternate as
layers do in ``softmax-bench time``, with a layer's default share of the budget, and the verdicts
are those of ``softmax-bench compare``. Every repetition creates the layers anew, so that rows and
states lie elsewhere in memory.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from scipy.stats import binomtest

from benchmarks.written import write_results
from softmax_bench.intervals import correlation_time
from softmax_bench.layers import create_layer, split_specs
from softmax_bench.measure import (
    LayerStep,
    interleave,
    watch_machine,
    zipf_counts,
)
from softmax_bench.measure.timing import Phases
from softmax_bench.report.comparison.verdict import ratio_interval, verdict

SHARE = 60.0 / 4
"""Seconds per layer: ``softmax-bench time`` has 60 for its four layers at each vocabulary size."""
TRAINING = 0.75
"""The part of these seconds for training steps; the rest is for evaluation and decoding."""
SLOWER = 0.05
H, TOKENS = 256, 700


@dataclass(frozen=True)
class Outcome:
    """One repetition."""

    layer: str
    rounds: int
    stopped: str | None
    ratio: float
    low: float
    high: float
    verdict: str
    """The verdict on the layer against itself."""
    slowed_ratio: float
    slowed_low: float
    slowed_high: float
    slowed_verdict: str
    correlation: float
    """Rounds that carry as much information about the ratio as one independent round."""
    foreign: float
    stolen: float
    """Shares of the processor's time that other processes took."""


def slowed(step: Callable[[], Phases]) -> Callable[[], Phases]:
    """The same step, followed by :data:`SLOWER` of its time in a busy loop."""

    def run() -> Phases:
        begin = time.perf_counter()
        phases = step()
        taken = time.perf_counter() - begin
        while time.perf_counter() - begin < taken + SLOWER * phases["step"]:
            pass
        return {"step": phases["step"] + time.perf_counter() - begin - taken}

    return run


def repetition(layer: str, classes: int, budget: float, number: int) -> Outcome:
    """Time a layer, its twin, and its slowed twin against each other."""
    steps = []
    for _ in range(3):
        torch.manual_seed(number)
        steps.append(
            LayerStep(create_layer(layer, H, classes, zipf_counts(classes), sparse=True), TOKENS)
        )
    with watch_machine() as seen:
        timed = interleave(
            {"A": steps[0], "A again": steps[1], "slowed": slowed(steps[2])},
            budget_seconds=3 * TRAINING * budget,
        )
    samples = {name: np.array(phases["step"].samples) for name, phases in timed.items()}
    first = ratio_interval(samples["A again"], samples["A"], paired=True)
    second = ratio_interval(samples["slowed"], samples["A"], paired=True)
    return Outcome(
        layer,
        len(samples["A"]),
        timed["A"]["step"].stopped,
        *first,
        verdict(*first[1:], "faster", "slower"),
        *second,
        verdict(*second[1:], "faster", "slower"),
        correlation_time(np.log(samples["A again"] / samples["A"])),
        seen[0].foreign,
        seen[0].stolen,
    )


def summary(layer: str, outcomes: list[Outcome]) -> str:
    """A row of the table."""
    total = len(outcomes)
    equal = sum(one.verdict == "no difference found" for one in outcomes)
    detected = sum(one.slowed_verdict == "A is slower" for one in outcomes)
    bounds = binomtest(total - equal, total).proportion_ci()
    width = np.median([(one.high - one.low) / 2 for one in outcomes])
    stopped = ", ".join(f"{n} {why}" for why, n in Counter(o.stopped for o in outcomes).items())
    return (
        f"| {layer} | {equal} of {total} | {bounds.low:.0%} to {bounds.high:.0%} "
        f"| {detected} of {total} | {np.median([o.slowed_ratio for o in outcomes]):.3f} "
        f"| {max(abs(np.log(o.ratio)) for o in outcomes):.1%} | {width:.1%} "
        f"| {np.median([o.rounds for o in outcomes]):.0f} ({stopped}) "
        f"| {np.median([o.correlation for o in outcomes]):.1f} "
        f"| {np.median([o.foreign + o.stolen for o in outcomes]):.0%} |"
    )


HEADINGS = [
    "layer", "A/A: no difference", "false alarms, 95 % interval", "5 % slower: found", "its ratio",
    "A/A ratio, furthest from 1", "half an interval", "rounds (stopped)", "correlation time",
    "processor taken by others",
]  # fmt: skip


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aa", description=__doc__)
    parser.add_argument("--layers", default="full,hierarchical,nce,sampled")
    parser.add_argument("--vocab-size", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=SHARE, help="budget of a candidate")
    parser.add_argument("--out", type=Path, help="folder for aa.json and table.md")
    options = parser.parse_args()
    console = Console()
    outcomes: list[Outcome] = []
    table = [f"| {' | '.join(HEADINGS)} |", "| --- " * len(HEADINGS) + "|"]
    for layer in split_specs(options.layers):
        numbers = track(range(options.repetitions), layer, console=console, transient=True)
        own = [repetition(layer, options.vocab_size, options.seconds, n) for n in numbers]
        outcomes += own
        table.append(summary(layer, own))
        console.print(table[-1], highlight=False, soft_wrap=True, markup=False)
    write_results(
        options.out, "aa", "\n".join(table) + "\n",
        vocab_size=options.vocab_size, hidden_size=H, num_tokens=TOKENS,
        seconds_of_a_candidate=options.seconds, outcomes=[asdict(one) for one in outcomes],
    )  # fmt: skip


if __name__ == "__main__":
    main()
