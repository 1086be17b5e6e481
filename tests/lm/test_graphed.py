"""Steps as CUDA graphs, on a pretended GPU: operations are recorded, undone, and done again."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from softmax_bench.layers import create_layer
from softmax_bench.lm import LanguageModel, make_optimizer, make_streams, train
from softmax_bench.lm.graphed import WARM_UP, Graphed, why_no_graph


class _Recorder(TorchDispatchMode):
    strict = True
    """Whether a question to the device is an error, as it is on CUDA."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.undo: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if self.strict and func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        changed = [
            value
            for argument, value in itertools.zip_longest(func._schema.arguments, args)
            if argument and argument.alias_info and argument.alias_info.is_write
        ]
        for value in changed:
            tensors = value if isinstance(value, (list, tuple)) else [value]
            self.undo += [(x, x.clone()) for x in tensors if isinstance(x, Tensor)]
        out = func(*args, **given)
        self.operations.append((func, args, given, out))
        return out


class Graph:
    """Does again what was recorded, and writes the results where they were written then."""

    def __init__(self) -> None:
        self.recorder = _Recorder()
        self.replays = 0

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, out in self.recorder.operations:
            again = func(*args, **kwargs)
            pairs = zip(_tensors(out), _tensors(again), strict=True)
            for place, value in pairs:
                if place.untyped_storage().data_ptr() != value.untyped_storage().data_ptr():
                    place.copy_(value)


def _tensors(out: Any) -> list[Tensor]:
    parts = out if isinstance(out, (list, tuple)) else [out]
    return [x for x in parts if isinstance(x, Tensor)]


@contextmanager
def _capture(graph: Graph, stream: object) -> Iterator[None]:
    try:
        with graph.recorder:
            yield
    finally:
        with torch.no_grad():
            for tensor, before in reversed(graph.recorder.undo):
                tensor.copy_(before)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Those that are made."""
    made: list[Graph] = []
    stream = SimpleNamespace(wait_stream=lambda other: None)
    generator = SimpleNamespace(clone_state=lambda: None, graphsafe_set_state=lambda state: None)

    def graph() -> Graph:
        made.append(Graph())
        return made[-1]

    for name, value in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda of: nullcontext(),
        "CUDAGraph": graph,
        "graph": _capture,
        "default_generators": [generator],
        "current_device": lambda: 0,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return made


def test_replays_read_their_operands_and_leave_the_results_of_before(graphs: list[Graph]) -> None:
    total = torch.zeros(2)

    def add(factor: float, pair: tuple[Tensor, None]) -> tuple[Tensor, None]:
        total.add_(factor * pair[0])
        return total + 0, None

    graphed = Graphed(add)
    seen = [graphed(2.0, (torch.full((2,), float(n)), None))[0] for n in range(WARM_UP + 4)]
    sums = np.cumsum(2.0 * np.arange(WARM_UP + 4))
    assert [x.tolist() for x in seen] == [[n, n] for n in sums]
    assert [graph.replays for graph in graphs] == [4]
    # Another number is another function, another shape too; what comes back finds its graph.
    assert graphed(1.0, (torch.ones(2), None))[0].tolist() == [sums[-1] + 1] * 2
    assert graphed(2.0, (torch.ones(1), None))[0].tolist() == [sums[-1] + 3] * 2
    assert graphed(2.0, (torch.ones(2), None))[0].tolist() == [sums[-1] + 5] * 2
    assert [graph.replays for graph in graphs] == [5]


def test_what_asks_the_device_goes_on_without_a_graph(
    graphs: list[Graph], caplog: pytest.LogCaptureFixture
) -> None:
    total = torch.zeros(())

    def ask(x: Tensor) -> Tensor:
        total.add_(x)
        return x * float(total)

    graphed = Graphed(ask)
    seen = [float(graphed(torch.ones(()))) for _ in range(WARM_UP + 3)]
    assert seen == [float(n + 1) for n in range(WARM_UP + 3)]
    assert "not permitted" in graphed.impossible
    assert caplog.text.count("without a CUDA graph") == 1
    assert len(graphs) == 1


@pytest.mark.parametrize("encoder", ["nplm", "transformer"])
@pytest.mark.parametrize("rule", ["sgd", "adagrad"])
def test_training_in_a_graph_is_training(
    encoder: str, rule: str, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over two passes, with a short window at the end of each and a rate that falls once."""
    loop = sys.modules["softmax_bench.lm.train"]  # the name is its function's too
    monkeypatch.setattr(loop, "why_no_graph", lambda layer: "")
    # A CPU looks at targets and losses, makes row-sparse gradients of sizes that it asks for, and
    # leaves gradients alone whose factor is 1.
    monkeypatch.setattr(_Recorder, "strict", False)
    monkeypatch.setattr("softmax_bench.lm.model.embed_rows", lambda weight, ids: weight[ids])
    monkeypatch.setattr(
        "softmax_bench.lm.optimizers.scale_all_", lambda by, of: torch._foreach_mul_(of, by)
    )
    text = make_streams(np.random.default_rng(0).integers(0, 9, 2 * 103), 2, 0)
    histories = []
    for cuda_graph in (False, True):
        torch.manual_seed(0)
        layer = create_layer("full", 6, 9)
        model = LanguageModel(layer, encoder=encoder, embedding_size=6)
        history = train(
            model, make_optimizer(rule, model.parameters(), 0.1), text, text,
            window=10, valid_window=50, max_tokens=2 * 206, clip_norm=0.5, evaluations=2,
            cuda_graph=cuda_graph,
        )  # fmt: skip
        histories.append([(point.train_loss, point.valid.nats) for point in history])
    assert sum(graph.replays for graph in graphs) >= 8
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-5)


def test_why_there_is_no_graph() -> None:
    layer = create_layer("kernel", 4, 9)
    assert why_no_graph(layer) == "the device is cpu"
    with pytest.MonkeyPatch.context() as patch:
        on_gpu = SimpleNamespace(device=torch.device("cuda"))
        patch.setattr(type(layer), "parameters", lambda self: iter([on_gpu]))
        assert why_no_graph(layer) == "kernel makes decisions on the host in every step"
        patch.setattr(type(layer), "capturable", True)
        assert why_no_graph(layer) == ""
