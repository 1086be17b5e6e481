"""Whole training steps of every layer, up to ten million classes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu.case import Case, Figures
from benchmarks.gpu.clock import median_seconds, peak_gib, waits
from softmax_bench.layers import create_layer
from softmax_bench.lm.graphed import WARM_UP, Graphed, why_no_graph
from softmax_bench.measure import LayerStep, zipf_counts

TO_TEN_MILLION = ("hierarchical", "sampled", "nce", "negative_sampling", "in_batch", "partial_fc")
TO_A_MILLION = (
    "hierarchical_kary", "ranking_nce", "blackout", "two_level", "adaptive", "torch_adaptive",
    "kernel", "rff", "midx", "full", "differentiated",
)  # fmt: skip


def cases(device: torch.device, *, small: bool) -> Iterator[Case]:
    """Layers expected to be flat in V first, and small vocabularies first."""
    tokens, width = (64, 16) if small else (4096, 512)
    sizes = (100, 1000) if small else (10**4, 10**5, 10**6, 10**7)
    for size in sizes:
        for spec in TO_TEN_MILLION:
            yield _case(spec, tokens, width, size, device)
    for size in sizes[:3]:
        for spec in TO_A_MILLION:
            yield _case(spec, tokens, width, size, device)


def _case(spec: str, tokens: int, width: int, size: int, device: torch.device) -> Case:
    return Case(f"{spec} V={size}", partial(_figures, spec, tokens, width, size, device))


def _figures(spec: str, tokens: int, width: int, size: int, device: torch.device) -> Figures:
    torch.manual_seed(0)
    layer = create_layer(spec, width, size, zipf_counts(size), sparse=True, device=device)
    step = LayerStep(layer, tokens, encoder=None)
    step.untimed()
    peak, waited = peak_gib(step.untimed, device), waits(step.untimed, device)
    eager, why_not = median_seconds(step.untimed, device), why_no_graph(layer)
    in_graph = None
    if not why_not:
        graph = Graphed(step.untimed)
        for _ in range(WARM_UP + 1):
            graph()
        in_graph, why_not = median_seconds(graph, device), graph.impossible
    step.zero_grad()
    return {
        "layer": spec,
        "classes": size,
        "tokens": tokens,
        "width": width,
        "ms": 1e3 * eager,
        "ms in a graph": None if why_not or in_graph is None else 1e3 * in_graph,
        "no graph because": why_not,
        "waits": waited,
        "GiB at peak": peak,
    }
