"""Every layer trains on the kernels as it does on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from softmax_bench.layers import OutputLayer, create_layer, layer_names, parse_spec
from softmax_bench.layers.options import layer_options
from softmax_bench.lm import clip_grad_norm, make_optimizer

WIDTH, CLASSES, TOKENS = 3, 20, 7
COUNTS = (200 / torch.arange(1, CLASSES + 1)).long()[torch.randperm(CLASSES)]

DRAWING = [name for name in layer_names() if "num_samples" in layer_options(parse_spec(name)[0])]
SPECS = [
    *sorted(set(layer_names()) - set(DRAWING)),
    # All classes in partial_fc, which draws differently on a GPU.
    *(f"{name}(num_samples={100 if name == 'partial_fc' else 9})" for name in DRAWING),
    "adaptive(cutoffs=[4, 9])",
    "hierarchical(bias=False)",
    "hierarchical_kary(arity=7)",
    "nce(num_samples=7, shared=False)",
    "nce(num_samples=9, log_z='learned')",
    "nce(num_samples=9, log_z='estimated')",
    "sampled(num_samples=9, replacement=True)",
    "two_level(num_clusters=7, bias=False)",
]


def steps(layer: OutputLayer, hidden: Tensor, target: Tensor) -> list[Tensor]:
    """Losses, gradients of the hidden states and parameters after some steps."""
    device = hidden.device
    rule = make_optimizer("adagrad", layer.parameters(), 0.1)
    torch.manual_seed(1)
    seen = []
    for _ in range(2):
        rule.zero_grad()
        leaf = hidden.clone().requires_grad_()
        loss = layer(leaf, target)
        (3 * loss).backward()
        assert leaf.grad is not None
        clip_grad_norm(layer.parameters(), 0.5)
        rule.step()
        seen += [loss.detach(), leaf.grad]
    seen += [parameter.detach() for parameter in layer.parameters()]
    assert all(x.device == device for x in seen)
    return [x.cpu() for x in seen]


@pytest.mark.parametrize("spec", SPECS)
def test_steps_are_those_of_a_cpu(spec: str, device: str, request: pytest.FixtureRequest) -> None:
    if device == "cuda" and "num_samples" in spec:
        pytest.skip("a GPU draws other numbers")
    torch.manual_seed(0)
    hidden, target = torch.randn(TOKENS, WIDTH), torch.randint(CLASSES, (TOKENS,))
    target[3] = -100
    layers = []
    for _ in range(2):
        torch.manual_seed(0)
        layers.append(create_layer(spec, WIDTH, CLASSES, COUNTS, sparse=True))
    wanted = steps(layers[0], hidden, target)
    request.getfixturevalue("_as_on_cuda")
    seen = steps(layers[1].to(device), hidden.to(device), target.to(device))
    for ours, theirs in zip(seen, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-4)
