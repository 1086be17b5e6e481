"""``torch.autocast`` around any layer: lower products, float32 sums, parameters and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from softmax_bench.layers import create_layer, layer_names
from softmax_bench.layers.proposals.base import ProposalSoftmax

Proposed = tuple[Tensor, ...]


def losses_and_gradients(
    spec: str, proposed: list[Proposed], *, mixed: bool
) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of a step, which adds its draws to ``proposed`` or takes them from it."""
    torch.manual_seed(0)
    layer = create_layer(spec, 64, 900, torch.randint(0, 50, (900,)))
    if isinstance(layer, ProposalSoftmax):
        propose = layer._propose

        def same_draws(*args: Tensor) -> Proposed:
            if not mixed:
                proposed.append(propose(*args))
            return proposed[0]

        setattr(layer, "_propose", same_draws)  # noqa: B010 (mypy refuses an assignment)
    hidden = torch.randn(40, 64).tanh_().requires_grad_()
    target = torch.randint(900, (40,))
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        loss = layer(hidden, target)
    loss.backward()
    leaves = [hidden, *layer.parameters()]
    return loss.detach(), [p.grad.to_dense() for p in leaves if p.grad is not None]


@pytest.mark.parametrize("spec", layer_names())
def test_autocast_gives_nearly_the_same_step(spec: str) -> None:
    proposed: list[Proposed] = []
    exact, gradients = losses_and_gradients(spec, proposed, mixed=False)
    # Draws follow the hidden states, so that rounding these would give others.
    mixed, mixed_gradients = losses_and_gradients(spec, proposed, mixed=True)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, rtol=1e-2, atol=0)
    for ours, wanted in zip(mixed_gradients, gradients, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - wanted).norm()) < 0.1 * float(wanted.norm()) + 1e-6


def test_half_precision_hidden_states_are_taken_by_a_float32_layer() -> None:
    layer = create_layer("full", 8, 20)
    hidden, target = torch.randn(3, 8, dtype=torch.bfloat16), torch.tensor([1, 2, 3])
    assert layer(hidden, target).dtype == torch.float32
    torch.testing.assert_close(layer(hidden, target), layer(hidden.float(), target))
