"""Exact top-k that looks at few classes: how many, on a model that has learned something."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from softmax_bench.layers import create_layer
from softmax_bench.layers.reduced.adaptive import AdaptiveSoftmax
from softmax_bench.layers.trees.tree_layer import TreeSoftmax
from softmax_bench.layers.trees.two_level import TwoLevelSoftmax
from softmax_bench.measure import zipf_counts

V, H, TOKENS, K = 3000, 8, 5, 10


@pytest.mark.parametrize("spec", ["hierarchical", "hierarchical_kary(arity=8)"])
def test_a_tree_opens_few_nodes(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = create_layer(spec, H, V, zipf_counts(V), dtype=torch.float64)
    assert isinstance(layer, TreeSoftmax)
    hidden = 3 * torch.randn(TOKENS, H, dtype=torch.float64)
    opened = []
    sides = layer._sides

    def counted(states: Tensor, node: Tensor) -> Tensor:
        opened.append(node.shape[0])
        return sides(states, node)

    monkeypatch.setattr(layer, "_sides", counted)
    values, classes = layer.topk(hidden, K)
    best = layer.log_prob(hidden).topk(K)
    torch.testing.assert_close(values, best.values)
    assert torch.equal(classes, best.indices)
    assert sum(opened) < 0.3 * TOKENS * layer.tree.shape[0]


def test_adaptive_softmax_opens_a_tail_only_for_tokens_that_may_need_it() -> None:
    spec = "adaptive(cutoffs=[100, 1000])"
    layer = create_layer(spec, H, V, zipf_counts(V), dtype=torch.float64)
    assert isinstance(layer, AdaptiveSoftmax)
    opened = []
    for tail in layer.tail:
        assert isinstance(tail, nn.Sequential)
        tail.register_forward_hook(lambda module, inputs, output: opened.append(output.numel()))
    hidden = 30 * torch.randn(TOKENS, H, dtype=torch.float64)
    layer.topk(hidden, K)
    assert sum(opened) < 0.5 * TOKENS * (V - 100)


def test_two_level_softmax_opens_few_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = create_layer("two_level", H, V, zipf_counts(V), dtype=torch.float64)
    assert isinstance(layer, TwoLevelSoftmax)
    hidden = 10 * torch.randn(TOKENS, H, dtype=torch.float64)
    opened = []
    scores = layer._member_scores

    def counted(states: Tensor, cluster: Tensor) -> Tensor:
        opened.append(cluster.shape[0])
        return scores(states, cluster)

    monkeypatch.setattr(layer, "_member_scores", counted)
    values, _ = layer.topk(hidden, K)
    torch.testing.assert_close(values, layer.log_prob(hidden).topk(K).values)
    assert sum(opened) < 0.3 * TOKENS * layer.member.shape[0]
