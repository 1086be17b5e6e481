"""A training step asks the device for nothing: tensors without data cannot answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from softmax_bench.layers import OutputLayer, create_layer, layer_names
from softmax_bench.layers.proposals.base import ProposalSoftmax
from softmax_bench.lm import clip_grad_norm, make_optimizer

CLASSES, WIDTH, TOKENS = 200, 8, 16
COUNTS = (2000 / torch.arange(1, CLASSES + 1)).long()
ASKING = {"torch_adaptive", "torch_linear_cross_entropy"}
"""Ask how many tokens each tail has, and which tokens count."""

SPECS = [
    *sorted(set(layer_names()) - ASKING),
    "adaptive(cutoffs=[20, 90])",
    "nce(shared=False, num_samples=5)",
    "nce(log_z='estimated')",
    "sampled(num_samples=20)",
    "sampled(num_samples=20, replacement=True)",
]


def step(layer: OutputLayer, hidden: torch.Tensor, target: torch.Tensor) -> None:
    rule = make_optimizer("adagrad", layer.parameters(), 0.1)
    for _ in range(2):
        rule.zero_grad()
        layer(hidden, target).backward()
        clip_grad_norm(layer.parameters(), 1.0)
        rule.step()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU counts for itself: see below")
@pytest.mark.usefixtures("_as_on_cuda")
@pytest.mark.parametrize("spec", SPECS)
def test_a_step_asks_nothing_of_tensors_without_data(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.runtime.interpreter import InterpretedFunction

    monkeypatch.setattr(InterpretedFunction, "run", lambda self, *args, **options: None)
    monkeypatch.setattr("softmax_bench.layers.inputs._may_look", lambda tensor: False)
    monkeypatch.setattr(OutputLayer, "_leaves_out", lambda self, kept: False)
    layer = create_layer(spec, WIDTH, CLASSES, COUNTS, sparse=True)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in layer.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(mode.from_tensor(parameter.detach())))
            for name, buffer in module.named_buffers(recurse=False):
                if not name.startswith("_clock"):  # of the host
                    setattr(module, name, mode.from_tensor(buffer))
        hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
        target = torch.randint(CLASSES, (TOKENS,))
        # A tensor of the host's numbers would be waited for too.
        monkeypatch.delattr(torch, "tensor")
        step(layer, hidden, target)


class _Written(TorchDispatchMode):
    numbers = 0
    """How many numbers all operations have returned."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        returned = out if isinstance(out, (tuple, list)) else [out]
        self.numbers += sum(x.numel() for x in returned if isinstance(x, torch.Tensor))
        return out


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts on tensors without data")
@pytest.mark.usefixtures("_as_on_cuda")
def test_drawing_from_a_kernel_writes_no_more_at_ten_times_the_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from triton.runtime.interpreter import InterpretedFunction

    monkeypatch.setattr(InterpretedFunction, "run", lambda self, *args, **options: None)
    written = []
    for classes in (10**5, 10**6):
        layer = create_layer("kernel", 64, classes, device="meta", bias=False)
        assert isinstance(layer, ProposalSoftmax)
        hidden = torch.empty(1000, 64, device="meta")
        with _Written() as seen:
            layer._propose(hidden, torch.empty(1000, dtype=torch.int64, device="meta"))
        written.append(seen.numbers)
    assert 0 < written[1] < 1.2 * written[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("spec", SPECS)
def test_a_step_does_not_wait_for_the_gpu(spec: str) -> None:
    layer = create_layer(spec, WIDTH, CLASSES, COUNTS, sparse=True).cuda()
    hidden = torch.randn(TOKENS, WIDTH, device="cuda", requires_grad=True)
    target = torch.randint(CLASSES, (TOKENS,), device="cuda")
    step(layer, hidden, target)  # kernels are compiled, snapshots taken
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(layer, hidden, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
