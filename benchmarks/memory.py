"""What layers say that a step holds against what it holds: ``python -m benchmarks.memory``.

Bytes from the allocator, the same on every machine, so that nothing is timed and nothing disturbs.
The draws of targets differ: what a step holds depends on how many are distinct, or fall to a tail.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.progress import track

from softmax_bench.layers import create_layer, split_specs
from softmax_bench.measure import LayerStep, Memory, zipf_counts, zipf_targets


def measure(spec: str, vocab_size: int, hidden_size: int, num_tokens: int, seed: int) -> Memory:
    """A layer's step on targets and negatives drawn by Zipf's law."""
    torch.manual_seed(seed)
    layer = create_layer(spec, hidden_size, vocab_size, zipf_counts(vocab_size))
    return LayerStep(layer, num_tokens, target=zipf_targets(num_tokens, vocab_size, seed)).memory()


def compare(spec: str, steps: list[Memory]) -> dict[str, object]:
    """Bytes of a layer's steps, as means, and how far the expected ones are from them."""
    gradients = sum(step.gradients for step in steps) / len(steps)
    activations = pd.Series([step.activations for step in steps])
    expected = steps[0].expected_activations
    return {
        "layer": f"`{spec}`",
        "peak MB": _mb(sum(step.peak for step in steps) / len(steps)),
        "gradients MB": _mb(gradients),
        "expected": _mb(steps[0].expected_gradients),
        "off": f"{steps[0].expected_gradients / gradients - 1:+.1%}",
        "activations MB": _mb(activations.mean()),
        "from": _mb(activations.min()),
        "to": _mb(activations.max()),
        "expected MB": "-" if expected is None else _mb(expected),
        "off by": "-" if expected is None else f"{expected / activations.mean() - 1:+.1%}",
    }


def _mb(number: float) -> str:
    return f"{number / 1e6:,.2f}"


def markdown(rows: list[dict[str, object]], options: argparse.Namespace) -> str:
    """The table, with what was run above it."""
    title = (
        f"V = {options.vocab_size:,}, N = {options.num_tokens}, H = {options.hidden_size}, "
        f"float32; mean, least and most of {options.draws} draws of targets and negatives"
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
    sizes = options.vocab_size, options.hidden_size, options.num_tokens
    rows = [
        compare(spec, [measure(spec, *sizes, seed) for seed in range(options.draws)])
        for spec in track(split_specs(options.layers), description="layers", transient=True)
    ]
    text = markdown(rows, options)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "table.md").write_text(text)
    Console(width=200).print(text, markup=False, highlight=False)


if __name__ == "__main__":
    main()
