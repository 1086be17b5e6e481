"""Tokens with several positives: the mean of their losses, which is a cross-entropy too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import create_layer, layer_names
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.options import Reduction

V, H = 12, 4
POSITIVES = torch.tensor([[3, 7, 0], [5, -100, -100], [-100, -100, -100], [2, -100, 11]])
COUNTS = torch.arange(1, V + 1).double()


def hidden_states() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 2, H, dtype=torch.float64, requires_grad=True)


def reduced(losses: Tensor, weight: Tensor, reduction: Reduction) -> Tensor:
    """Mean over the positives of a token; one token, the third, has none."""
    kept = POSITIVES != -100
    of_pairs = losses.new_zeros(POSITIVES.shape).masked_scatter(kept, losses)
    of_tokens = of_pairs.sum(1) / kept.sum(1).clamp(min=1) * weight.flatten()
    if reduction == "none":
        return of_tokens.view(2, 2)
    return of_tokens.sum() / (3 if reduction == "mean" else 1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("spec", layer_names())
def test_the_loss_is_the_mean_over_the_positives(
    spec: str, training: bool, reduction: Reduction
) -> None:
    hidden, weight = hidden_states(), torch.tensor([[1.0, 2.0], [0.5, 3.0]], dtype=torch.float64)
    options: dict[str, Any] = {"class_counts": COUNTS, "dtype": torch.float64}
    layer = create_layer(spec, H, V, reduction=reduction, **options)
    plain = create_layer(spec, H, V, reduction="none", **options)
    plain.load_state_dict(layer.state_dict())
    for either in (layer, plain):
        either.train(training)
    torch.manual_seed(1)
    loss = layer(hidden, POSITIVES.view(2, 2, 3), weight)

    token, _ = (POSITIVES != -100).nonzero(as_tuple=True)
    torch.manual_seed(1)
    pairs = plain(hidden.reshape(-1, H)[token], POSITIVES[POSITIVES != -100])
    wanted = reduced(pairs, weight, reduction)
    torch.testing.assert_close(loss, wanted)
    operands = hidden, *layer.parameters()
    gradients = torch.autograd.grad(loss.sum(), operands, allow_unused=True)
    operands = hidden, *plain.parameters()
    for gradient, want in zip(
        gradients, torch.autograd.grad(wanted.sum(), operands, allow_unused=True), strict=True
    ):
        assert (gradient is None) == (want is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, want)


@pytest.mark.parametrize("spec", ["full", f"sampled(num_samples={V})", "self_normalized_sampled"])
def test_it_is_torchs_cross_entropy_with_probabilities(spec: str) -> None:
    hidden = hidden_states()
    layer = create_layer(spec, H, V, COUNTS, dtype=torch.float64)
    assert isinstance(layer, LinearOutputLayer)
    shares = torch.zeros(4, V, dtype=torch.float64)
    for token, positives in enumerate(POSITIVES):
        kept = positives[positives != -100]
        shares[token, kept] = 1 / max(1, len(kept))
    scores = F.linear(hidden.reshape(-1, H), layer.weight, layer.bias)
    wanted = F.cross_entropy(scores[[0, 1, 3]], shares[[0, 1, 3]])
    penalty = getattr(layer, "penalty", 0.0) * scores[[0, 1, 3]].logsumexp(1).square().mean()
    torch.testing.assert_close(layer(hidden, POSITIVES.view(2, 2, 3)), wanted + penalty)


def test_weights_of_classes_count_by_their_shares() -> None:
    hidden, class_weight = hidden_states(), torch.arange(1.0, V + 1)
    layer = create_layer("full", H, V, class_weight=class_weight, dtype=torch.float64)
    alike = torch.tensor([[[1, 1], [2, 2]], [[3, 3], [4, 4]]])
    torch.testing.assert_close(layer(hidden, alike), layer(hidden, alike[..., 0]))


def test_no_tokens_and_no_positives() -> None:
    layer = create_layer("full", H, V)
    assert layer(torch.randn(0, H), torch.zeros(0, 3).long()).item() == 0
    assert layer(torch.randn(2, H), torch.zeros(2, 0).long()).item() == 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 2), r"\(2,\) of the hidden states, or \(2, 'K'\) with K positives each, not \(3, 2\)"),
        ((2, V), "12 positives per token, of 12 classes: it must hold their ids"),
        ((2, 1, 1), r"must have the shape \(2,\)"),
        ((), r"must have the shape \(2,\)"),
    ],
)
def test_what_are_no_positives(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(SoftmaxBenchError, match=message):
        create_layer("full", H, V)(torch.randn(2, H), torch.zeros(shape).long())
