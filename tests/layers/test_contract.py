from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from softmax_bench.layers import create_layer, layer_names, parse_spec
from softmax_bench.layers.reduced.torch_adaptive import TorchAdaptiveSoftmax
from softmax_bench.testing import check_output_layer

VARIANTS = [
    *layer_names(),
    "full(bias=False)",
    "full(label_smoothing=0.2)",
    "hierarchical(bias=False)",
    "hierarchical(tree='random')",
    "hierarchical(tree='balanced', bias=False)",
    "hierarchical_kary(arity=3)",
    "hierarchical_kary(arity=7, bias=False)",
    "adaptive(bias=False, div_value=2.0)",
    "two_level(bias=False)",
    "two_level(num_clusters=1)",
    "differentiated(nested=True)",
    "negative_sampling(shared=False)",
    "negative_sampling(calibration=0.75)",
    "in_batch(num_samples=7)",
    "blackout(num_samples=3)",
    "ranking_nce(num_samples=4, noise='uniform')",
    "self_normalized(penalty=0.0)",
    "self_normalized_sampled(num_samples=5)",
    "torch_linear_cross_entropy(chunk_tokens=None)",
    "nce(num_samples=7, shared=False)",
    "nce(log_z='learned', noise='log_uniform')",
    "nce(log_z='estimated', bias=False)",
    "nce(log_z=2.5, num_samples=3, power=0.5)",
    "sampled(num_samples=5)",
    "sampled(num_samples=4, replacement=True, noise='unigram', power=0.75)",
    "sampled(noise='uniform', bias=False)",
]


@pytest.mark.parametrize("spec", VARIANTS)
def test_contract(spec: str) -> None:
    layer, options = parse_spec(spec)
    check_output_layer(
        lambda width, classes, **common: layer(
            width, classes, **{**common, **options}, sparse=True
        ),
        every_gradient=layer is not TorchAdaptiveSoftmax,
    )


@pytest.mark.parametrize("spec", layer_names())
@given(size=st.integers(1, 10_000), seed=st.integers(0, 1000))
def test_normalised_at_any_size(spec: str, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = create_layer(spec, 3, size, torch.randint(0, 9, (size,)), dtype=torch.float64)
    total = layer.log_prob(2 * torch.randn(2, 3, dtype=torch.float64)).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


COUNTS: dict[str, Callable[[int], Tensor | None]] = {
    "none": lambda size: None,
    "equal": lambda size: torch.full((size,), 7),
    "zeros": torch.zeros,
    "some zeros": lambda size: torch.arange(size) % 2,
    "one of all": lambda size: torch.eye(size)[size - 1] * 1e9,
}


@pytest.mark.parametrize("spec", layer_names())
@given(
    size=st.integers(1, 4),
    tokens=st.integers(0, 2),
    counts=st.sampled_from(list(COUNTS)),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    scale=st.sampled_from([0.0, 1.0, 100.0]),
    seed=st.integers(0, 1000),
)
def test_degenerate_sizes_counts_and_types(
    spec: str, size: int, tokens: int, counts: str, dtype: torch.dtype, scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = create_layer(spec, 3, size, COUNTS[counts](size), dtype=dtype)
    hidden = (scale * torch.randn(tokens, 3)).to(dtype).requires_grad_()
    target = torch.randint(size, (tokens,))
    loss = layer(hidden, target)
    loss.backward()
    assert loss.isfinite()
    gradients = [p.grad.to_dense() for p in (hidden, *layer.parameters()) if p.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    log_prob = layer.target_log_prob(hidden, target)
    assert bool((log_prob <= (1.0 if dtype == torch.bfloat16 else 1e-4)).all())  # rounded scores
    assert bool(log_prob.isfinite().all())
    _, best = layer.topk(hidden, size)
    assert best.sort(-1).values.tolist() == [list(range(size))] * tokens
    assert bool((layer.sample(hidden) < size).all())


@pytest.mark.parametrize("spec", layer_names())
def test_starts_at_the_unigram_model(spec: str) -> None:
    """Same start for all: at hidden state 0 every layer gives the log-unigram distribution."""
    counts = torch.tensor([5.0, 1.0, 30.0, 0.0, 4.0, 60.0])
    layer = create_layer(spec, 3, 6, counts, dtype=torch.float64)
    seen = counts.clamp(min=1).double()
    torch.testing.assert_close(
        layer.log_prob(torch.zeros(1, 3, dtype=torch.float64))[0], (seen / seen.sum()).log()
    )


@pytest.mark.parametrize("spec", ["full", "nce", "sampled"])
def test_state_dict_is_that_of_a_linear_layer(spec: str) -> None:
    layer = create_layer(spec, 4, 9)
    linear = torch.nn.Linear(4, 9)
    state = {name: layer.state_dict()[name] for name in ("weight", "bias")}
    linear.load_state_dict(state)
    hidden = torch.randn(2, 4)
    torch.testing.assert_close(layer.log_prob(hidden), linear(hidden).log_softmax(-1))
