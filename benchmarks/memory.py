"""Memory of a step, measured and predicted from small steps: ``python -m benchmarks.memory``.

Bytes come from the allocator and are the same on every machine; nothing is timed. The prediction is
that of ``softmax-bench advise``, fitted to steps at its small calibration sizes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.progress import track

from softmax_bench.advise.calibration import MAX_FLOPS, SIZES
from softmax_bench.advise.model import predict_peak
from softmax_bench.advise.workload import Workload, workload
from softmax_bench.layers import create_layer, split_specs
from softmax_bench.measure import LayerStep, zipf_counts, zipf_targets
from softmax_bench.records.result import Memory

Size = tuple[int, int, int]
"""V, H and N."""


def describe(spec: str, size: Size) -> Workload:
    """A layer's step on classes that follow Zipf's law."""
    return workload(spec, *size, zipf_counts(size[0]))


def measure(spec: str, size: Size, seed: int) -> Memory:
    """The same step, taken on targets and negatives drawn by Zipf's law."""
    torch.manual_seed(seed)
    vocab_size, hidden_size, num_tokens = size
    layer = create_layer(spec, hidden_size, vocab_size, zipf_counts(vocab_size), sparse=True)
    return LayerStep(layer, num_tokens, target=zipf_targets(num_tokens, vocab_size, seed)).memory()


def expect(spec: str, size: Size) -> tuple[float, float]:
    """Gradient bytes by the layer's cost, and peak bytes by a fit to small steps."""
    small = [(one, describe(spec, one)) for one in SIZES]
    small = [(one, work) for one, work in small if work.flops <= MAX_FLOPS and one[0] < size[0]]
    peaks = [measure(spec, one, seed).peak for seed, (one, _) in enumerate(small)]
    work = describe(spec, size)
    return work.gradient_bytes, predict_peak([work for _, work in small], peaks, work)


def compare(spec: str, size: Size, draws: int) -> dict[str, object]:
    """Mean bytes of a layer's steps, and how far the predictions are from them."""
    steps = [measure(spec, size, seed) for seed in range(draws)]
    gradients = sum(step.gradients for step in steps) / len(steps)
    peaks = pd.Series([step.peak for step in steps])
    expected_gradients, expected_peak = expect(spec, size)
    return {
        "layer": f"`{spec}`",
        "gradients MB": _mb(gradients),
        "expected": _mb(expected_gradients),
        "off": f"{expected_gradients / gradients - 1:+.1%}",
        "activations MB": _mb(peaks.mean() - gradients),
        "peak MB": _mb(peaks.mean()),
        "least": _mb(peaks.min()),
        "most": _mb(peaks.max()),
        "expected MB": _mb(expected_peak),
        "off by": f"{expected_peak / peaks.mean() - 1:+.1%}",
    }


def _mb(number: float) -> str:
    return f"{number / 1e6:,.2f}"


def markdown(rows: list[dict[str, object]], size: Size, draws: int) -> str:
    """The table, with a line above it that says what was run."""
    title = (
        f"V = {size[0]:,}, H = {size[1]}, N = {size[2]}, float32; "
        f"mean, least and most of {draws} draws of targets and negatives"
    )
    headings = list(rows[0])
    lines = [headings, ["---"] * len(headings), *[list(map(str, row.values())) for row in rows]]
    return title + "\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--layers", default="all", help="separated by commas")
    parser.add_argument("--vocab-size", type=int, default=100_000)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--num-tokens", type=int, default=700)
    parser.add_argument("--draws", type=int, default=5, help="of targets and negatives")
    parser.add_argument("--out", type=Path, help="a folder for the table")
    options = parser.parse_args()
    size = options.vocab_size, options.hidden_size, options.num_tokens
    rows = [
        compare(spec, size, options.draws)
        for spec in track(split_specs(options.layers), description="layers", transient=True)
    ]
    text = markdown(rows, size, options.draws)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "table.md").write_text(text)
    Console(width=200).print(text, markup=False, highlight=False)


if __name__ == "__main__":
    main()
