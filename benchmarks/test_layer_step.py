"""Every output layer, phase by phase, over a grid of vocabulary sizes.

``pytest --benchmark-only`` prints a table that compares the layers for each vocabulary size and
phase. It times the same :class:`~softmax_bench.measure.LayerStep` as the command line does. But
pytest-benchmark finishes one case before the next, so on a machine whose speed drifts,
``softmax-bench time``, which alternates between the layers, is the better judge of small
differences. ``softmax-bench compare`` reads the files of ``--benchmark-json``.
"""

from __future__ import annotations

import time
from functools import lru_cache

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from softmax_bench.layers import create_layer, layer_names, split_specs
from softmax_bench.measure import LayerStep, zipf_counts

HIDDEN_SIZE = 256
NUM_TOKENS = 700
OPTIMIZER = "adagrad"
SEED = 0
MAX_FLOPS = 1.5e11
"""Steps with more operations are left out of the grid, because they take seconds on a CPU."""
SLOWEST = 1.0
"""Steps that take more seconds are left out too, so that the whole grid takes three minutes."""
TIMED = ("forward", "backward", "optimizer", "step")
"""Phases of a step; here forward includes drawing, and the step includes clipping."""
SECONDS = 0.15
"""Seconds for one case, including all preparation; it has 3 to 50 rounds."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The grid: vocabulary size, then layer, then phase, so that one layer is held at a time."""
    layers = metafunc.config.getoption("--layers")
    sizes = [int(size) for size in metafunc.config.getoption("--vocab-sizes").split(",")]
    specs = split_specs(layers) if layers else layer_names()
    grid = [(size, spec, phase) for size in sizes for spec in specs for phase in TIMED]
    metafunc.parametrize(("vocab_size", "spec", "phase"), grid)


@lru_cache(maxsize=1)
def _step(spec: str, vocab_size: int) -> tuple[LayerStep, float] | None:
    """A layer's step, warmed up, and its seconds with the encoder's; None if it is too slow."""
    counts = zipf_counts(vocab_size)
    without_memory = create_layer(spec, HIDDEN_SIZE, vocab_size, counts, device="meta")
    if without_memory.cost(NUM_TOKENS).flops > MAX_FLOPS:
        return None
    torch.manual_seed(SEED)
    layer = create_layer(spec, HIDDEN_SIZE, vocab_size, counts, sparse=True)
    step = LayerStep(layer, NUM_TOKENS, optimizer=OPTIMIZER, seed=SEED)
    step()  # creates the optimiser's state
    begin = time.perf_counter()
    step()
    seconds = time.perf_counter() - begin
    return (step, seconds) if seconds <= SLOWEST else None


@pytest.mark.benchmark(disable_gc=True)  # as in softmax-bench time
def test_layer_step(benchmark: BenchmarkFixture, vocab_size: int, spec: str, phase: str) -> None:
    """Time one phase of a training step."""
    known = _step(spec, vocab_size)
    if known is None:
        pytest.skip(f"{spec} at V={vocab_size:,} is too slow for this grid")
    step, seconds = known
    cost = step.layer.cost(NUM_TOKENS)
    benchmark.group = f"V={vocab_size:,} {phase}"
    benchmark.extra_info.update(
        layer=spec,
        phase=phase,
        V=vocab_size,
        H=HIDDEN_SIZE,
        N=NUM_TOKENS,
        optimizer=OPTIMIZER,
        clip_norm=step.clip_norm,
        seed=SEED,
        threads=torch.get_num_threads(),
        device=str(step.device),
        dtype=str(step.hidden.dtype).removeprefix("torch."),
        encoder="lstm",
        upkeep=step.upkeep,
        parameters=cost.parameters,
        rows_touched=cost.rows_touched,
        flops=cost.flops,
        bytes=cost.bytes,
    )
    run, prepare = _phase(step, phase)
    rounds = min(50, max(3, int(SECONDS / seconds)))
    benchmark.pedantic(run, setup=prepare, rounds=rounds, warmup_rounds=1)


def _phase(step: LayerStep, phase: str):  # type: ignore[no-untyped-def]
    """The function to time, and what to do untimed before each round."""
    if phase == "forward":
        return step.forward, step.prepare
    if phase == "optimizer":

        def gradients() -> None:
            step.prepare()
            step.forward().backward()

        return step.optimizer.step, gradients
    if phase == "backward":

        def loss() -> tuple[tuple[torch.Tensor], dict[str, object]]:
            step.prepare()
            return (step.forward(),), {}

        return torch.Tensor.backward, loss
    return step.take, step.prepare
