"""Whether a layer's time depends on the layers timed with it: ``python -m benchmarks.company``.

Every layer is timed alone and with 1, 6 and 15 other layers, as ``softmax-bench time`` does it; by
``pytest --benchmark-only``; and as its part of a language model's training step, which all of these
stand for. Each pass takes the groups in a new random order. The result is the median over the
passes of a layer's median, relative to its time alone.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track

from benchmarks.written import write_results
from softmax_bench.layers import create_layer, layer_names, split_specs
from softmax_bench.lm import LanguageModel, clip_grad_norm, make_optimizer
from softmax_bench.measure import (
    LayerStep,
    interleave,
    watch_machine,
    zipf_counts,
    zipf_targets,
)
from softmax_bench.records.pytest_benchmark import read_pytest_benchmark
from softmax_bench.records.trial import BPTT

OTHERS = (0, 1, 6, 15)
HIDDEN_SIZE, NUM_TOKENS = 256, 700
BETWEEN_COMPANIES, BETWEEN_TOOLS = 0.03, 0.05
"""How far medians may differ."""

Group = tuple[str, ...]


def groups(layers: Sequence[str], others: int) -> list[Group]:
    """Groups of equal size that contain every layer, some layers twice."""
    size = min(others + 1, len(layers))
    starts = range(0, len(layers), size)
    return [tuple(layers[min(at, len(layers) - size) :][:size]) for at in starts]


def beside(group: Group, vocab_size: int, seconds: float) -> Iterator[tuple[str, float]]:
    """Each layer of a group, and its median seconds per step."""
    counts = zipf_counts(vocab_size)
    steps = {}
    for spec in group:
        torch.manual_seed(0)
        layer = create_layer(spec, HIDDEN_SIZE, vocab_size, counts, sparse=True)
        steps[spec] = LayerStep(layer, NUM_TOKENS)
    timed = interleave(steps, budget_seconds=seconds * len(group))
    for spec, phases in timed.items():
        yield spec, phases["step"].median


def in_training(spec: str, vocab_size: int, seconds: float) -> float:
    """Median seconds of the layer's part in the steps of a language model."""
    torch.manual_seed(0)
    counts = zipf_counts(vocab_size)
    layer = create_layer(spec, HIDDEN_SIZE, vocab_size, counts, sparse=True)
    model = LanguageModel(layer, embedding_size=HIDDEN_SIZE).train()
    others = [*model.embedding.parameters(), *model.encoder.parameters()]
    own = make_optimizer("adagrad", layer.parameters(), 1e-3)
    rest = make_optimizer("adagrad", others, 1e-3)
    target = zipf_targets(NUM_TOKENS, vocab_size, seed=0)
    words = target.view(BPTT, -1)

    def step() -> dict[str, float]:
        own.zero_grad()
        rest.zero_grad()
        hidden, _ = model.hidden(words)
        begin = time.perf_counter()
        given = hidden.detach().flatten(0, 1).requires_grad_()
        layer(given, target).backward()
        taken = time.perf_counter() - begin
        assert given.grad is not None
        hidden.backward(given.grad.view_as(hidden))
        clip_grad_norm(others, 5.0)
        rest.step()
        begin = time.perf_counter()
        clip_grad_norm(layer.parameters(), 5.0)
        own.step()
        return {"step": taken + time.perf_counter() - begin}

    return interleave({spec: step}, budget_seconds=seconds)[spec]["step"].median


def by_pytest(layers: Sequence[str], vocab_size: int) -> Iterator[tuple[str, float]]:
    """The same by pytest-benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        subprocess.run(
            [
                sys.executable, "-m", "pytest", "-q", "benchmarks", "--benchmark-only",
                "--layers", ",".join(layers), "--vocab-sizes", str(vocab_size),
                "-k", "not forward and not backward and not optimizer",
                "--benchmark-json", str(file),
            ],
            check=True, stdout=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        speed = read_pytest_benchmark(file).speed
    yield from zip(speed["layer"], speed["seconds"], strict=True)


def measure(
    layers: Sequence[str], sizes: Sequence[int], passes: int, seconds: float, console: Console
) -> pd.DataFrame:
    """One row per layer, vocabulary size, group size and pass."""
    order = random.Random(0)
    work: list[tuple[int, str, Group]] = []
    for number in range(passes):
        todo = [
            (number, f"beside {others}", group)
            for others in OTHERS
            for group in groups(layers, others)
        ]
        todo.append((number, "pytest", tuple(layers)))
        todo += [(number, "in training", (layer,)) for layer in layers]
        order.shuffle(todo)
        work += todo
    rows = []
    for size in sizes:
        for number, company, group in track(work, f"V = {size:,}", console=console, transient=True):
            timed: Iterable[tuple[str, float]]
            if company == "pytest":
                timed = by_pytest(group, size)
            elif company == "in training":
                timed = [(group[0], in_training(group[0], size, seconds))]
            else:
                timed = beside(group, size, seconds)
            rows += [
                {"vocab_size": size, "layer": layer, "company": company, "pass": number,
                 "seconds": median}
                for layer, median in timed
            ]  # fmt: skip
    return pd.DataFrame(rows)


def relative(rows: pd.DataFrame) -> pd.DataFrame:
    """Medians over the passes: ``alone`` in seconds, the other columns relative to it."""
    table = rows.pivot_table(
        index=["vocab_size", "layer"], columns="company", values="seconds", aggfunc="median"
    )
    alone = table.pop("beside 0")
    companies = [f"beside {others}" for others in OTHERS[1:]]
    table = table[[*companies, "pytest", "in training"]].div(alone, axis=0)
    table.insert(0, "alone", alone)
    return table


def markdown(table: pd.DataFrame) -> str:
    """The table, and a sentence that says how far the medians differ at most."""
    lines = [f"| V | layer | alone, ms | {' | '.join(table.columns[1:])} |", "| --- " * 8 + "|"]
    for row in table.reset_index().itertuples(index=False):
        size, layer, alone, *ratios = row
        shown = " | ".join("" if np.isnan(ratio) else f"{ratio:.3f}" for ratio in ratios)
        lines.append(f"| {size:,} | `{layer}` | {1e3 * alone:.3g} | {shown} |")
    apart = (table.filter(like="beside") - 1).abs().to_numpy().ravel()
    tools = (table["pytest"] - 1).abs().dropna().to_numpy()
    lines += [
        "",
        f"Beside others {np.mean(apart <= BETWEEN_COMPANIES):.0%} of the medians are within "
        f"{BETWEEN_COMPANIES:.0%} of those alone, and the furthest is {np.max(apart):.1%} away. By "
        f"pytest-benchmark {np.mean(tools <= BETWEEN_TOOLS):.0%} are within {BETWEEN_TOOLS:.0%}, "
        f"and the furthest is {np.max(tools):.1%} away. The part in training is "
        f"{table['in training'].median():.3f} times the time alone in the median over the layers.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.company", description=__doc__)
    parser.add_argument("--layers", default="all", help="separated by commas")
    parser.add_argument("--vocab-sizes", default="10000,100000")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a layer in a group")
    parser.add_argument("--out", type=Path, help="folder for company.json and table.md")
    options = parser.parse_args()
    layers = layer_names() if options.layers == "all" else split_specs(options.layers)
    sizes = [int(size) for size in options.vocab_sizes.split(",")]
    console = Console()
    with watch_machine() as seen:
        rows = measure(layers, sizes, options.passes, options.seconds, console)
    text = markdown(relative(rows))
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    write_results(
        options.out, "company", text, stolen=seen[0].stolen, hidden_size=HIDDEN_SIZE,
        num_tokens=NUM_TOKENS, times=rows.to_dict("records"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
