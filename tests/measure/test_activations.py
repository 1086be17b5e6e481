"""What layers say that a step holds, against what it holds: bytes of the allocator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from softmax_bench import Cost, FullSoftmax
from softmax_bench.layers import create_layer, layer_names
from softmax_bench.layers.registry import layer_package
from softmax_bench.measure import LayerStep, Memory, peak_bytes, zipf_counts
from softmax_bench.ops import release_workspace
from softmax_bench.ops.cpu.workspace import workspace

OWN = sorted(
    {*layer_names()} - {"kernel", "midx", "rff"} - {n for n in layer_names() if layer_package(n)}
)
SIZES = [(1000, 64, 64), (20_000, 200, 64), (20_000, 40, 512)]
"""V, N, H."""
CPU = torch.device("cpu")
WITHIN = 0.15
FLOOR = 20_000
"""Bytes: ids, counts and single numbers are not all accounted for."""
VARIANTS = [
    ("nce(num_samples=25, shared=False)", (20_000, 200, 64)),
    ("sampled(replacement=True, bias=False)", (20_000, 200, 64)),
    ("two_level(num_clusters=40)", (1000, 1000, 64)),
    ("differentiated(nested=True, bias=False)", (20_000, 200, 64)),
    ("torch_linear_cross_entropy(chunk_tokens=16)", (20_000, 200, 64)),
    ("adaptive(cutoffs=[300])", (20_000, 200, 64)),
    ("adaptive(cutoffs=[300], bias=False)", (300_000, 200, 64)),
    ("full", (300, 5000, 64)),  # blocks of tokens
    ("full", (300_000, 300, 2)),  # the workspace holds some of them
    ("sampled(num_samples=100)", (20_000, 5000, 64)),
    ("nce(num_samples=100)", (20_000, 5000, 64)),
]


def held(spec: str, size: tuple[int, int, int], **options: Any) -> Memory:
    num_classes, num_tokens, width = size
    counts = zipf_counts(num_classes)
    layer = create_layer(spec, width, num_classes, counts, **options)
    uneven = "adaptive" in spec or "two_level" in spec
    target = evenly(counts, num_tokens) if uneven else None
    return LayerStep(layer, num_tokens, target=target).memory()


def evenly(counts: np.ndarray, num_tokens: int) -> torch.Tensor:
    """Targets as near to the counts as can be.

    What an adaptive softmax holds is given by the few tokens of its tails, and what a two-level one
    holds by those that share a cluster: by luck, if drawn.
    """
    running = np.cumsum(counts / counts.sum())
    return torch.from_numpy(np.searchsorted(running, (np.arange(num_tokens) + 0.5) / num_tokens))


def near(expected: float, measured: float) -> bool:
    return abs(expected - measured) <= max(WITHIN * measured, FLOOR)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", OWN)
def test_a_step_holds_what_its_layer_says(name: str, size: tuple[int, int, int]) -> None:
    memory = held(name, size)
    assert near(memory.expected_gradients, memory.gradients)
    expected = memory.expected_activations
    assert expected is not None
    assert near(expected, memory.activations)
    if size != SIZES[0]:  # where everything is small some of it is near any number
        assert not near(2 * expected, memory.activations)
        assert not near(expected / 2, memory.activations)


@pytest.mark.parametrize(("spec", "size"), VARIANTS, ids=str)
def test_with_other_options_too(spec: str, size: tuple[int, int, int]) -> None:
    memory = held(spec, size)
    assert near(memory.expected_gradients, memory.gradients)
    assert memory.expected_activations is not None
    assert near(memory.expected_activations, memory.activations)


@pytest.mark.parametrize(
    "name",
    ["full", "differentiated", "two_level", "sampled", "nce", "hierarchical"],
)
def test_in_float64_too(name: str) -> None:
    memory = held(name, SIZES[1], dtype=torch.float64)
    assert memory.expected_activations is not None
    assert near(memory.expected_activations, memory.activations)


@pytest.mark.parametrize("name", OWN)
def test_the_account_needs_no_memory(name: str) -> None:
    counts = zipf_counts(1000)
    there, nowhere = (create_layer(name, 8, 1000, counts, device=d) for d in ("cpu", "meta"))
    assert there.cost(20) == nowhere.cost(20)
    assert nowhere.cost(0).activations == pytest.approx(0, abs=1e5)


def test_parts_add_up_to_the_peak() -> None:
    memory = held("blackout", SIZES[1])
    assert memory.activations + memory.gradients == memory.peak
    assert memory.activations + memory.expected_gradients == pytest.approx(memory.peak, rel=0.02)


def test_scratch_that_grows_is_not_held_twice() -> None:
    def grow() -> None:
        for numel in (1000, 3000, 2000):
            workspace(numel, torch.float32, CPU)

    release_workspace()
    assert peak_bytes(grow, CPU) == 3000 * 4
    release_workspace()


def test_a_layer_need_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Cost(flops=1.0, bytes=1.0, parameters=9000, rows_touched=1000)
    monkeypatch.setattr(FullSoftmax, "cost", lambda self, num_tokens: said)
    assert held("full", (1000, 10, 8)).expected_activations is None
