"""How close the layers come to what the machine allows: ``python -m benchmarks.limits``.

Each line is a ratio of two quantities measured alternately in one process, together with its
target. ``python -m benchmarks.peers`` compares the layers with other implementations.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.ours import sample_floor, sampled
from benchmarks.peers.race import make_inputs
from benchmarks.written import write_results
from softmax_bench.classes.noise import make_noise
from softmax_bench.layers import OutputLayer, create_layer
from softmax_bench.lm import LanguageModel, clip_grad_norm, make_optimizer
from softmax_bench.measure import (
    LayerStep,
    interleave,
    peak_bytes,
    zipf_counts,
    zipf_targets,
)
from softmax_bench.measure.roofline import measure_machine
from softmax_bench.ops import release_workspace
from softmax_bench.records.trial import CLIP_NORM

CPU = torch.device("cpu")
H = 256
ROW_SPARSE = ("hierarchical", "nce", "sampled")


@dataclass(frozen=True)
class Line:
    """One figure and its target."""

    what: str
    value: float
    aim: str
    detail: str


def _timed(run: Callable[[], object]) -> Callable[[], dict[str, float]]:
    def once() -> dict[str, float]:
        begin = time.perf_counter()
        run()
        return {"step": time.perf_counter() - begin}

    return once


def _medians(runs: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    timed = interleave(
        {name: _timed(run) for name, run in runs.items()},
        budget_seconds=seconds,
        min_repetitions=3,
        max_repetitions=60,
    )
    return {name: phases["step"].median for name, phases in timed.items()}


def _step(spec: str, tokens: int, classes: int, dtype: torch.dtype = torch.float32) -> LayerStep:
    torch.manual_seed(0)
    layer = create_layer(spec, H, classes, zipf_counts(classes), dtype=dtype, sparse=True)
    return LayerStep(layer, tokens)


def _forward_backward(step: LayerStep) -> Callable[[], None]:
    def run() -> None:
        step.zero_grad()
        step.forward().backward()

    return run


def primitives(seconds: float) -> Iterator[Line]:
    """Forward and backward relative to the roofline of this machine."""
    machine = measure_machine(CPU)
    yield Line("float32 products", machine.flops / 1e9, "-", "GFLOP/s at 2048^3")
    yield Line("memory", machine.bytes / 1e9, "-", "GB/s, read and written by a copy")
    for tokens in (700, 4096):
        for spec, classes in (
            ("full", 10_000),
            ("full", 100_000),
            ("hierarchical", 100_000),
            ("sampled(num_samples=1024)", 100_000),
            ("sampled(num_samples=8192)", 100_000),
            ("nce(num_samples=1024, noise='uniform')", 100_000),
            ("nce(num_samples=25, shared=False)", 100_000),
        ):
            step = _step(spec, tokens, classes)
            took = _medians({"step": _forward_backward(step)}, seconds)["step"]
            cost = step.layer.cost(tokens)
            detail = (
                f"{cost.flops / 1e9:.3g} GFLOP, {cost.bytes / 1e6:.3g} MB at least: "
                f"{1e3 * machine.least_seconds(cost):.3g} ms possible ({machine.bound(cost)}), "
                f"{1e3 * took:.3g} ms taken"
            )
            name = f"{spec}, V={classes:,}, N={tokens}"
            yield Line(f"{name}: possible / taken", machine.least_seconds(cost) / took, "-", detail)


def memory(seconds: float) -> Iterator[Line]:
    """Peak memory beyond parameters and their gradients, full softmax against plain torch."""
    del seconds
    tokens, classes = 4096, 100_000
    hidden = torch.randn(tokens, H).tanh_().requires_grad_()
    target = zipf_targets(tokens, classes, seed=0)
    layer = create_layer("full", H, classes)
    weight, bias = (p.detach().clone().requires_grad_() for p in layer.parameters())
    gradients = 4 * (weight.numel() + bias.numel() + hidden.numel())

    def drop() -> None:
        release_workspace()
        hidden.grad = None
        for parameter in (weight, bias, *layer.parameters()):
            parameter.grad = None

    def eager() -> None:
        F.cross_entropy(F.linear(hidden, weight, bias), target).backward()

    peaks = {}
    for name, run in (("eager", eager), ("ours", lambda: layer(hidden, target).backward())):
        drop()
        peaks[name] = peak_bytes(run, CPU) - gradients
    detail = f"{peaks['ours'] / 1e6:,.0f} MB against {peaks['eager'] / 1e6:,.0f} MB"
    name = "full softmax, V=100,000, N=4096: peak memory / eager's"
    yield Line(name, peaks["ours"] / peaks["eager"], "<= 0.125", detail)


def bfloat16(seconds: float) -> Iterator[Line]:
    """Half precision against float32."""
    tokens, classes = 700, 100_000
    steps = {
        dtype: _step("full", tokens, classes, dtype) for dtype in (torch.float32, torch.bfloat16)
    }
    single, half = steps[torch.float32], steps[torch.bfloat16]
    with torch.no_grad():
        half.layer.load_state_dict(single.layer.state_dict())
    took = _medians(
        {str(dtype): _forward_backward(step) for dtype, step in steps.items()}, 4 * seconds
    )
    ratio = took["torch.float32"] / took["torch.bfloat16"]
    detail = ", ".join(f"{name} {1e3 * t:.0f} ms" for name, t in took.items())
    yield Line("full softmax, V=100,000, N=700: float32 / bfloat16", ratio, ">= 1.8", detail)
    exact, rounded = float(single.forward().detach()), float(half.forward().detach())
    yield Line("  its loss, relative error", abs(rounded / exact - 1), "<= 0.001", f"{exact:.5f}")


def drawing(seconds: float) -> Iterator[Line]:
    """Drawing noise as a share of the step, and building its tables."""
    classes = 1_000_000
    for spec in ("sampled", "nce", "nce(num_samples=25, shared=False)"):
        step = _step(spec, 700, classes)
        sampler = step.layer.sampler
        assert isinstance(sampler, nn.Module)
        draws = 700 * 25 if "False" in spec else sampler.num_draws
        took = _medians(
            {
                "step": _forward_backward(step),
                "draw": lambda s=sampler, n=draws: s.noise.sample(n, CPU),  # type: ignore[misc]
            },
            seconds,
        )
        detail = f"{1e6 * took['draw']:.0f} us for {draws} of {1e3 * took['step']:.3g} ms"
        name = f"{spec}, V=1,000,000: drawing / forward and backward"
        yield Line(name, took["draw"] / took["step"], "<= 0.05", detail)
    counts = zipf_counts(classes)
    took = _medians({"table": lambda: make_noise("unigram", classes, counts)}, seconds)
    yield Line("alias table, V=1,000,000: seconds", took["table"], "<= 0.5", "")


def optimizer(seconds: float) -> Iterator[Line]:
    """The optimiser's share of a row-sparse layer's step."""
    for spec in ROW_SPARSE:
        for rule in ("sgd", "adagrad", "adam"):
            torch.manual_seed(0)
            layer = create_layer(spec, H, 100_000, zipf_counts(100_000), sparse=True)
            step = LayerStep(layer, 700, optimizer=rule)
            phases = interleave({"step": step}, budget_seconds=seconds)["step"]
            rest = phases["forward"].median + phases["backward"].median
            update = phases["clip"].median + phases["optimizer"].median
            detail = f"{1e3 * update:.2f} ms of {1e3 * rest:.2f}"
            aim = "<= 0.4" if spec == "hierarchical" else "<= 0.25"
            name = f"{spec}, V=100,000, {rule}: clip and step / forward and backward"
            yield Line(name, update / rest, aim, detail)


def steps(seconds: float) -> Iterator[Line]:
    """Whole steps of one layer against another's, and sampled softmax against its products."""
    for spec, classes, other, other_classes, aim in (
        ("kernel", 10**5, "sampled", 10**5, "<= 3"),
        ("rff", 10**5, "sampled", 10**5, "<= 3"),
        ("adaptive", 10**4, "torch_adaptive", 10**4, "<= 1"),
        ("nce", 10**6, "nce", 10**4, "<= 1.25"),
    ):
        runs = {"one": _step(spec, 700, classes), "other": _step(other, 700, other_classes)}
        timed = interleave(runs, budget_seconds=2 * seconds)
        one, two = (timed[name]["step"].median for name in runs)
        name = f"step of {spec}, V={classes:,} / {other}, V={other_classes:,}"
        yield Line(name, one / two, aim, f"{1e3 * one:.2f} ms, {1e3 * two:.2f} ms")
    inputs = make_inputs(700, H, 10**5, 1024)
    took = _medians({"ours": sampled(inputs), "bare": sample_floor(inputs)}, 2 * seconds)
    detail = f"{1e3 * took['ours']:.2f} ms, {1e3 * took['bare']:.2f} ms"
    name = "sampled, V=100,000: forward and backward / its three products"
    yield Line(name, took["ours"] / took["bare"], "<= 1.25", detail)


def training(seconds: float) -> Iterator[Line]:
    """The whole training step, from embedding to optimiser, as V grows."""
    sizes = (10_000, 1_000_000)
    for spec in ROW_SPARSE:
        runs = {str(size): _training_step(spec, size) for size in sizes}
        took = _medians(runs, 2 * seconds)
        small, large = (took[str(size)] for size in sizes)
        yield Line(
            f"{spec}: training step, V=10^6 / V=10^4",
            large / small,
            "<= 1.4",
            f"LSTM of 256, 20 x 35 tokens, Adagrad: {1e3 * small:.1f} ms, {1e3 * large:.1f} ms",
        )


def _training_step(spec: str, classes: int) -> Callable[[], None]:
    torch.manual_seed(0)
    model = LanguageModel(
        create_layer(spec, H, classes, zipf_counts(classes), sparse=True),
        encoder="lstm",
        embedding_size=H,
    )
    update = make_optimizer("adagrad", model.parameters(), 0.1)
    text = zipf_targets(36 * 20, classes, seed=0).view(36, 20)

    def run() -> None:
        update.zero_grad()
        loss, _ = model(text[:-1], text[1:], None)
        loss.backward()
        clip_grad_norm(model.parameters(), CLIP_NORM)
        update.step()

    return run


def evaluation(seconds: float) -> Iterator[Line]:
    """Exact log-probabilities of given classes."""
    classes, tokens = 1_000_000, 700
    hidden = torch.randn(tokens, H).tanh_()
    target = zipf_targets(tokens, classes, seed=0)
    layers = {
        spec: create_layer(spec, H, classes, zipf_counts(classes))
        for spec in ("full", "hierarchical")
    }

    def evaluate(layer: OutputLayer) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: layer.target_log_prob(hidden, target))

    took = _medians({spec: evaluate(layer) for spec, layer in layers.items()}, 3 * seconds)
    detail = ", ".join(f"{spec} {1e3 * t:.3g} ms" for spec, t in took.items())
    name = "exact evaluation, V=1,000,000, N=700: full / hierarchical"
    yield Line(name, took["full"] / took["hierarchical"], ">= 100", detail)


def start(seconds: float) -> Iterator[Line]:
    """The start-up time of the command line."""
    del seconds
    command = [sys.executable, "-c", "from softmax_bench.cli import main; main()", "--help"]
    took = []
    for _ in range(7):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        took.append(time.perf_counter() - begin)
    yield Line("softmax-bench --help: seconds", statistics.median(took), "<= 0.4", "")


SECTIONS = (
    primitives, memory, bfloat16, drawing, optimizer, steps, training, evaluation, start,
)  # fmt: skip


def main() -> None:
    """Measure, print and store."""
    names = [section.__name__ for section in SECTIONS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("--section", choices=names, help="all by default")
    parser.add_argument("--seconds", type=float, default=4.0, help="budget of one figure")
    parser.add_argument("--out", type=Path, help="folder for limits.json and table.md")
    options = parser.parse_args()
    console, lines = Console(), []
    for section in SECTIONS:
        if options.section in (None, section.__name__):
            for line in section(options.seconds):
                lines.append(line)
                console.print(
                    f"{line.what}: {line.value:.3g}  (aim {line.aim})  {line.detail}",
                    highlight=False,
                    soft_wrap=True,
                )
    table = ["| what | measured | aim | detail |", "| --- | --- | --- | --- |"]
    table += [f"| {x.what} | {x.value:.3g} | {x.aim} | {x.detail} |" for x in lines]
    write_results(
        options.out, "limits", "\n".join(table) + "\n", lines=[asdict(line) for line in lines]
    )


if __name__ == "__main__":
    main()
