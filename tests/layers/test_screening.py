from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import create_layer
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.screening import Screen

pytest.importorskip("faiss", exc_type=ImportError)

H = 16


def clustered(spec: str, classes: int) -> tuple[LinearOutputLayer, Tensor]:
    """Rows about 50 centres, as those of a trained model lie about some, and hidden states."""
    layer = create_layer(spec, H, classes, torch.arange(1, classes + 1).flip(0))
    assert isinstance(layer, LinearOutputLayer)
    centres = torch.randn(50, H)
    with torch.no_grad():
        layer.weight.copy_(centres[torch.randint(50, (classes,))])
        layer.weight.add_(torch.randn(classes, H), alpha=0.3)
    return layer, centres[:20].view(4, 5, H) + 0.3 * torch.randn(4, 5, H)


@pytest.mark.parametrize("spec", ["full", "sampled", "nce", "full(bias=False)"])
def test_all_clusters_searched_give_the_exact_classes(spec: str) -> None:
    layer, hidden = clustered(spec, 300)
    screen = Screen(layer, clusters=10, probes=10)
    scores, classes = screen.topk(hidden, 7)
    log_prob, exact = layer.topk(hidden, 7)
    assert torch.equal(classes, exact)
    log_z = layer.log_normalizer(hidden).unsqueeze(-1)
    torch.testing.assert_close(scores - log_z, log_prob, rtol=1e-4, atol=1e-4)
    assert screen.recall(hidden, 7) == 1


def test_few_clusters_searched_find_most() -> None:
    layer, hidden = clustered("full", 5000)
    low, high = (Screen(layer, probes=probes).recall(hidden, 10) for probes in (1, 40))
    assert low < high
    assert high > 0.9


def test_classes_that_are_not_found() -> None:
    layer, hidden = clustered("full", 60)
    screen = Screen(layer, clusters=30, probes=1)
    scores, classes = screen.topk(hidden, 50)
    missing = classes == -1
    assert missing.any()
    assert scores[missing].isneginf().all()
    assert screen.recall(hidden, 50) < 1


def test_what_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, hidden = clustered("full", 30)
    with pytest.raises(SoftmaxBenchError, match="probes must be from 1 to clusters"):
        Screen(layer, clusters=5, probes=6)
    with pytest.raises(SoftmaxBenchError, match="one row per class, not HierarchicalSoftmax"):
        Screen(create_layer("hierarchical", H, 30))  # type: ignore[arg-type]
    screen = Screen(layer, clusters=5, probes=2)
    with pytest.raises(SoftmaxBenchError, match="k must be from 1 to 30"):
        screen.topk(hidden, 31)
    with pytest.raises(SoftmaxBenchError, match="hidden must have shape"):
        screen.topk(hidden[..., :3], 1)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SoftmaxBenchError, match=r"pip install 'softmax-bench\[search\]'"):
        Screen(layer)
