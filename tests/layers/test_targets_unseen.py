"""Targets that are no classes, where a look at them would stop a GPU's queue."""

from __future__ import annotations

import pytest
import torch

from softmax_bench.layers import create_layer, layer_names
from softmax_bench.layers.inputs import _may_look


@pytest.fixture
def _nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softmax_bench.layers.inputs._may_look", lambda tensor: False)


@pytest.mark.usefixtures("_nobody_looks")
@pytest.mark.parametrize("spec", layer_names())
@pytest.mark.parametrize("wrong", [-1, 9, 2**40])
def test_a_wrong_target_makes_the_loss_nan_and_changes_nothing(spec: str, wrong: int) -> None:
    layer = create_layer(spec, 4, 9)
    hidden = torch.randn(3, 4, requires_grad=True)
    target = torch.tensor([2, wrong, -100])
    loss = layer(hidden, target)
    assert loss.isnan()
    loss.backward()
    gradients = [x.grad for x in (hidden, *layer.parameters()) if x.grad is not None]
    assert gradients
    assert all(not gradient.to_dense().any() for gradient in gradients)
    log_prob = layer.target_log_prob(hidden, target)
    assert log_prob.isnan().tolist() == [False, True, False]


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_anomaly_detection_looks_on_every_device() -> None:
    elsewhere = torch.empty(3, device="meta")
    assert not _may_look(elsewhere)
    with torch.autograd.detect_anomaly():
        assert _may_look(elsewhere)
