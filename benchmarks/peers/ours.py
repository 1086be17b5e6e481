"""The layers of this package, and their floor: the bare matrix products."""

from __future__ import annotations

import torch

from benchmarks.peers.race import Inputs, Step, backward, competes, cutoffs
from softmax_bench.layers import create_layer
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.measure import zipf_counts

OURS = "softmax-bench"
FLOOR = "floor (bare products)"


def _layer_step(spec: str, inputs: Inputs, *, comparable: bool) -> Step:
    layer = create_layer(
        spec,
        inputs.hidden_size,
        inputs.vocab_size,
        zipf_counts(inputs.vocab_size),
        sparse=True,
    )
    if isinstance(layer, LinearOutputLayer) and layer.bias is not None:
        with torch.no_grad():
            layer.weight.copy_(inputs.weight)
            layer.bias.copy_(inputs.bias)
    hidden = inputs.hidden.clone().requires_grad_()

    def step() -> float | None:
        loss = backward(layer(hidden, inputs.target), hidden, *layer.parameters())
        return loss if comparable else None

    return step


def _floor(inputs: Inputs, classes: int) -> Step:
    """Only the products for scores, gradient of the hidden states and gradient of the rows."""
    rows = inputs.weight[:classes].contiguous()
    scores = torch.zeros(inputs.num_tokens, classes)
    grad_hidden, grad_rows = torch.zeros_like(inputs.hidden), torch.zeros_like(rows)

    def step() -> None:
        torch.mm(inputs.hidden, rows.t(), out=scores)
        torch.mm(scores, rows, out=grad_hidden)
        torch.mm(scores.t(), inputs.hidden, out=grad_rows)

    return step


@competes("full softmax", OURS)
def full(inputs: Inputs) -> Step:
    """``FullSoftmax``."""
    return _layer_step("full", inputs, comparable=True)


@competes("full softmax", FLOOR)
def full_floor(inputs: Inputs) -> Step:
    """Three products over all classes."""
    return _floor(inputs, inputs.vocab_size)


@competes("hierarchical softmax", OURS)
def hierarchical(inputs: Inputs) -> Step:
    """``HierarchicalSoftmax``."""
    return _layer_step("hierarchical", inputs, comparable=False)


@competes("sampled softmax", OURS)
def sampled(inputs: Inputs) -> Step:
    """``SampledSoftmax`` with distinct log-uniform samples, like TensorFlow's."""
    return _layer_step(f"sampled(num_samples={inputs.num_samples})", inputs, comparable=False)


@competes("sampled softmax", FLOOR)
@competes("NCE, shared noise", FLOOR)
def sample_floor(inputs: Inputs) -> Step:
    """Three products over the sample."""
    assert inputs.num_samples is not None
    return _floor(inputs, min(inputs.num_samples, inputs.vocab_size))


@competes("NCE, shared noise", "softmax-bench, uniform noise")
def nce_uniform(inputs: Inputs) -> Step:
    """``NCE`` with noise that hardly draws a class twice, so that it computes all products."""
    spec = f"nce(num_samples={inputs.num_samples}, noise='uniform')"
    return _layer_step(spec, inputs, comparable=False)


@competes("NCE, shared noise", OURS)
def nce(inputs: Inputs) -> Step:
    """``NCE`` with unigram noise, where classes drawn twice are scored once."""
    return _layer_step(f"nce(num_samples={inputs.num_samples})", inputs, comparable=False)


@competes("NCE, noise per token", OURS)
def nce_per_token(inputs: Inputs) -> Step:
    """``NCE(shared=False)``."""
    spec = f"nce(num_samples={inputs.num_samples}, shared=False)"
    return _layer_step(spec, inputs, comparable=False)


@competes("adaptive softmax", OURS)
def adaptive(inputs: Inputs) -> Step:
    """``AdaptiveSoftmax`` with the cut-offs of its competitor."""
    return _layer_step(f"adaptive(cutoffs={cutoffs(inputs)})", inputs, comparable=False)


@competes("adaptive softmax", "softmax-bench, cut-offs of its own")
def adaptive_chosen(inputs: Inputs) -> Step:
    """``AdaptiveSoftmax`` with the cut-offs that its cost model chooses."""
    return _layer_step("adaptive", inputs, comparable=False)


@competes("two-level softmax", OURS)
def two_level(inputs: Inputs) -> Step:
    """``TwoLevelSoftmax``: some 4 sqrt(V) scores per token, from the rows of many clusters."""
    return _layer_step("two_level", inputs, comparable=False)


@competes("two-level softmax", "softmax-bench: sampled softmax, as many scores")
def sampled_like_two_level(inputs: Inputs) -> Step:
    """``SampledSoftmax``: as many scores per token, from the same rows for all tokens."""
    return sampled(inputs)


@competes("two-level softmax", "softmax-bench: full softmax", max_flops=1e12)
def full_like_two_level(inputs: Inputs) -> Step:
    """``FullSoftmax``."""
    return _layer_step("full", inputs, comparable=False)
