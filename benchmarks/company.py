"""Whether a layer's time depends on the layers timed beside it: ``python -m benchmarks.company``.

Every layer is timed alone, beside 1, beside 6 and beside 15 other layers, as ``softmax-bench time``
does it, by ``pytest --benchmark-only``, and as the part that it has in the training of a language
model, the step that all of these stand for. Layers that are timed alone are timed so twice: by how
much the two differ is what any difference must be compared with.

Each group is timed in a new process, because where a process's memory lies changes its times by
some per cent for as long as it lives. The groups come in an order drawn anew for each pass; what is
shown is the median over the passes of a layer's median, relative to its time alone.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from scipy.stats import bootstrap

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
from softmax_bench.records.trial import BPTT, CLIP_NORM

OTHERS = (1, 6, 15)
HIDDEN_SIZE, NUM_TOKENS = 256, 700
WITHIN = 0.03
"""By how much medians may differ."""

Group = tuple[str, ...]
Times = list[tuple[str, float]]
"""Layers, and the medians of their steps in seconds."""


def groups(layers: Sequence[str], others: int) -> list[Group]:
    """Groups of equal size that contain every layer, some layers twice."""
    size = min(others + 1, len(layers))
    starts = range(0, len(layers), size)
    return [tuple(layers[min(at, len(layers) - size) :][:size]) for at in starts]


def beside(group: Group, vocab_size: int, seconds: float) -> Times:
    """Each layer of a group timed beside the others of it."""
    counts = zipf_counts(vocab_size)
    steps = {}
    for spec in group:
        torch.manual_seed(0)
        layer = create_layer(spec, HIDDEN_SIZE, vocab_size, counts, sparse=True)
        steps[spec] = LayerStep(layer, NUM_TOKENS)
    timed = interleave(steps, budget_seconds=seconds * len(group))
    return [(spec, phases["step"].median) for spec, phases in timed.items()]


def in_training(group: Group, vocab_size: int, seconds: float) -> Times:
    """The part of a layer in the training steps of a language model."""
    (spec,) = group
    torch.manual_seed(0)
    counts = zipf_counts(vocab_size)
    layer = create_layer(spec, HIDDEN_SIZE, vocab_size, counts, sparse=True)
    upkeep = LayerStep(layer, NUM_TOKENS).upkeep
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
        clip_grad_norm(others, CLIP_NORM)
        rest.step()
        begin = time.perf_counter()
        clip_grad_norm(layer.parameters(), CLIP_NORM)
        own.step()
        return {"step": taken + time.perf_counter() - begin + upkeep}

    return [(spec, interleave({spec: step}, budget_seconds=seconds)[spec]["step"].median)]


def by_pytest(group: Group, vocab_size: int, seconds: float) -> Times:
    """By pytest-benchmark, which has a budget of its own."""
    del seconds
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        subprocess.run(
            [
                sys.executable, "-m", "pytest", "-q", "benchmarks", "--benchmark-only",
                "--layers", ",".join(group), "--vocab-sizes", str(vocab_size),
                "-k", "not forward and not backward and not optimizer",
                "--benchmark-json", str(file),
            ],
            check=True, stdout=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        speed = read_pytest_benchmark(file).speed
    return list(zip(speed["layer"], speed["seconds"], strict=True))


COMPANIES = {"alone": 0, "alone again": 0, **{f"beside {others}": others for others in OTHERS}}


def measure(
    layers: Sequence[str], sizes: Sequence[int], passes: int, seconds: float, console: Console
) -> pd.DataFrame:
    """A row for each layer, vocabulary size, company and pass."""
    order = random.Random(0)
    work = []
    for number in range(passes):
        todo = [
            (size, number, company, beside, group)
            for size in sizes
            for company, others in COMPANIES.items()
            for group in groups(layers, others)
        ]
        todo += [(size, number, "pytest", by_pytest, tuple(layers)) for size in sizes]
        todo += [
            (size, number, "in training", in_training, (layer,))
            for size in sizes
            for layer in layers
        ]
        order.shuffle(todo)
        work += todo
    rows = []
    fresh = get_context("forkserver")
    fresh.set_forkserver_preload(["softmax_bench.measure", "scipy.stats", "pandas"])
    with ProcessPoolExecutor(1, fresh, max_tasks_per_child=1) as processes:
        for size, number, company, run, group in track(work, console=console, transient=True):
            rows += [
                {"vocab_size": size, "layer": layer, "company": company, "pass": number,
                 "seconds": median}
                for layer, median in processes.submit(run, group, size, seconds).result()
            ]  # fmt: skip
    return pd.DataFrame(rows)


def relative(rows: pd.DataFrame) -> pd.DataFrame:
    """Medians over the passes: ``alone`` in seconds, and the other columns over it."""
    table = rows.pivot_table(
        index=["vocab_size", "layer"], columns="company", values="seconds", aggfunc="median"
    )
    alone = table.pop("alone")
    table = table[[*list(COMPANIES)[1:], "pytest", "in training"]].div(alone, axis=0)
    table.insert(0, "alone", alone)
    return table


def markdown(table: pd.DataFrame) -> str:
    """The layers, and how far their medians are from those alone."""
    companies = table.columns[1:]
    lines = [
        "| company | within 3 % | 9 of 10 within | furthest | median of all, 95 % interval |",
        "| --- " * 5 + "|",
    ]
    for company in companies:
        ratios = table[company].dropna().to_numpy()
        apart = np.abs(ratios - 1)
        low, high = bootstrap((ratios,), np.median, method="percentile").confidence_interval
        lines.append(
            f"| {company} | {np.mean(apart <= WITHIN):.0%} | {np.quantile(apart, 0.9):.1%} | "
            f"{apart.max():.1%} | {np.median(ratios):.3f} ({low:.3f} to {high:.3f}) |"
        )
    lines += ["", f"| V | layer | alone, ms | {' | '.join(companies)} |", "| --- " * 9 + "|"]
    for row in table.reset_index().itertuples(index=False):
        size, layer, alone, *ratios = row
        shown = " | ".join("" if np.isnan(ratio) else f"{ratio:.3f}" for ratio in ratios)
        lines.append(f"| {size:,} | `{layer}` | {1e3 * alone:.3g} | {shown} |")
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
