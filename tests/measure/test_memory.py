"""Bytes of a step: measured by the allocator, and what a layer's cost says of its gradients."""

from __future__ import annotations

import pytest
import torch

from softmax_bench.layers import create_layer, layer_names
from softmax_bench.layers.registry import layer_package
from softmax_bench.measure import LayerStep, peak_bytes, zipf_counts
from softmax_bench.ops import release_workspace
from softmax_bench.ops.cpu.workspace import workspace
from softmax_bench.records.result import Memory

OWN = [name for name in layer_names() if not layer_package(name)]
CPU = torch.device("cpu")


def held(spec: str, num_classes: int, num_tokens: int, width: int) -> tuple[Memory, float]:
    """What a step holds, and the bytes of its gradients by the layer's cost."""
    layer = create_layer(spec, width, num_classes, zipf_counts(num_classes), sparse=True)
    return LayerStep(layer, num_tokens).memory(), layer.cost(num_tokens).gradient_bytes


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        *((name, (20_000, 200, 64)) for name in OWN),
        ("nce(num_samples=25, shared=False)", (20_000, 200, 64)),
        ("sampled(replacement=True, bias=False)", (20_000, 200, 64)),
        ("two_level(num_clusters=40)", (1000, 1000, 64)),
        ("differentiated(nested=True, bias=False)", (20_000, 200, 64)),
    ],
    ids=str,
)
def test_gradients_are_as_large_as_the_touched_rows(spec: str, size: tuple[int, int, int]) -> None:
    memory, expected = held(spec, *size)
    follows_the_model = spec in ("kernel", "rff", "midx")  # then draws are known only nearly
    assert expected == pytest.approx(memory.gradients, rel=0.5 if follows_the_model else 0.15)
    assert memory.activations + memory.gradients == memory.peak


@pytest.mark.parametrize("name", OWN)
def test_the_cost_of_a_layer_needs_no_memory(name: str) -> None:
    counts = zipf_counts(1000)
    there, nowhere = (
        create_layer(name, 8, 1000, counts, device=d, sparse=True) for d in ("cpu", "meta")
    )
    assert there.cost(20) == nowhere.cost(20)


def test_scratch_that_grows_is_not_held_twice() -> None:
    def grow() -> None:
        for numel in (1000, 3000, 2000):
            workspace(numel, torch.float32, CPU)

    release_workspace()
    assert peak_bytes(grow, CPU) == 3000 * 4
    release_workspace()
