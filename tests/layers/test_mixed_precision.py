"""``torch.autocast`` around any layer: lower products, float32 sums, parameters and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from softmax_bench.layers import create_layer, layer_names, parse_spec
from softmax_bench.layers.proposals.base import ProposalSoftmax


def losses_and_gradients(spec: str, *, mixed: bool) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(0)
    layer = create_layer(spec, 64, 900, torch.randint(0, 50, (900,)))
    hidden = torch.randn(40, 64).tanh_().requires_grad_()
    target = torch.randint(900, (40,))
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        loss = layer(hidden, target)
    loss.backward()
    leaves = [hidden, *layer.parameters()]
    return loss.detach(), [p.grad.to_dense() for p in leaves if p.grad is not None]


@pytest.mark.parametrize("spec", layer_names())
def test_autocast_gives_nearly_the_same_step(spec: str) -> None:
    exact, gradients = losses_and_gradients(spec, mixed=False)
    mixed, mixed_gradients = losses_and_gradients(spec, mixed=True)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, rtol=1e-2, atol=0)
    # Where draws follow the hidden states, rounding these can change a draw.
    tolerance = 0.3 if issubclass(parse_spec(spec)[0], ProposalSoftmax) else 0.1
    for ours, wanted in zip(mixed_gradients, gradients, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - wanted).norm()) < tolerance * float(wanted.norm()) + 1e-6


def test_half_precision_hidden_states_are_taken_by_a_float32_layer() -> None:
    layer = create_layer("full", 8, 20)
    hidden, target = torch.randn(3, 8, dtype=torch.bfloat16), torch.tensor([1, 2, 3])
    assert layer(hidden, target).dtype == torch.float32
    torch.testing.assert_close(layer(hidden, target), layer(hidden.float(), target))
