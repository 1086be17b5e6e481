"""``torch.compile`` of a whole model, captured as for any backend, against the same in eager mode.

The backend differentiates and runs the captured graphs without generating code for them, so that
no C++ compiler is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from softmax_bench.layers import OutputLayer, create_layer, layer_names, parse_spec
from softmax_bench.lm import LanguageModel
from softmax_bench.ops import all_classes as linear

V, H = 40, 8
ALL = [*layer_names(), "tests.example_layer.bottleneck_softmax:BottleneckSoftmax(rank=3)"]

# The compiler itself looks at it after each graph break.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    """No graphs of other tests, and no run-time checks of shapes, which cannot be traced."""
    torch.compiler.reset()
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    torch.compiler.reset()


def step(model: nn.Module, run: Callable[..., Any], *inputs: Any) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of one training step, the draws of which are always the same."""
    model.zero_grad()
    torch.manual_seed(3)
    result = run(*inputs)
    loss = result[0] if isinstance(result, tuple) else result
    loss.sum().backward()
    return loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    "spec",
    # One of each kind: traced, and with each primitive behind its graph break.
    [
        "full",
        "adaptive",
        "hierarchical",
        "kernel",
        "nce",
        "sampled",
        "self_normalized",
        "two_level",
    ],
)
def test_a_compiled_model_trains_as_the_model_does(spec: str) -> None:
    layer = create_layer(spec, H, V, torch.randint(0, 9, (V,)), sparse=True)
    model = LanguageModel(layer, encoder="gru", embedding_size=6)
    compiled = torch.compile(model, backend="aot_eager")
    for batch in (3, 4):  # the second is another shape: compiled again
        tokens, target = torch.randint(V, (2, 5, batch))
        state = {name: value.clone() for name, value in model.state_dict().items()}
        loss, gradients = step(model, model, tokens, target, None)
        model.load_state_dict(state)  # for layers that learn a normaliser on the way
        compiled_loss, compiled_gradients = step(model, compiled, tokens, target, None)
        torch.testing.assert_close(compiled_loss, loss)
        for ours, wanted in zip(compiled_gradients, gradients, strict=True):
            assert ours.is_sparse == wanted.is_sparse
            assert not ours.is_sparse or ours.is_coalesced()
            torch.testing.assert_close(ours.to_dense(), wanted.to_dense())


@pytest.mark.parametrize("spec", ALL)
def test_a_layer_breaks_the_graph_once_or_never(spec: str) -> None:
    layer = create_layer(spec, H, V)
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    def objective(hidden: Tensor, target: Tensor) -> Tensor:
        return 2.0 * layer(hidden.tanh(), target)

    hidden, target = torch.randn(4, H), torch.randint(V, (4,))
    traceable = parse_spec(spec)[0].traceable
    run = torch.compile(objective, backend=backend, fullgraph=traceable)
    for _ in range(3):
        run(hidden, target)
    assert len(graphs) == (1 if traceable else 2)  # before the layer, and after it


@pytest.mark.parametrize("spec", layer_names())
def test_compiled_inference_gives_the_same(spec: str) -> None:
    layer = create_layer(spec, H, V)
    hidden, target = torch.randn(4, H), torch.randint(V, (4,))
    compiled = torch.compile(layer.target_log_prob, backend="aot_eager")
    torch.testing.assert_close(compiled(hidden, target), layer.target_log_prob(hidden, target))


@pytest.mark.parametrize(
    "spec",
    [
        "full",
        "full(bias=False, reduction='none')",
        "full(label_smoothing=0.1)",
        "self_normalized",
        "differentiated",
    ],
)
def test_passes_over_many_scores_are_one_node_of_the_graph(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "PLAIN_SCORES", 0)
    layer: OutputLayer = create_layer(spec, H, V)
    hidden, target = torch.randn(4, H), torch.randint(V, (4,))
    loss, gradients = step(layer, layer, hidden, target)
    compiled_loss, compiled_gradients = step(
        layer, torch.compile(layer, backend="aot_eager", fullgraph=True), hidden, target
    )
    torch.testing.assert_close(compiled_loss, loss)
    torch.testing.assert_close(compiled_gradients, gradients)
