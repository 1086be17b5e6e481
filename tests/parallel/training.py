"""Models trained by two processes, against one that has the joint batch."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import OutputLayer, create_layer
from softmax_bench.lm import (
    LanguageModel,
    Optimizer,
    Streams,
    clip_grad_norm,
    evaluate,
    make_optimizer,
    make_streams,
)
from softmax_bench.ops import row_sparse
from softmax_bench.parallel import DataParallel, ParallelFullSoftmax
from softmax_bench.parallel.exchange import side_by_side
from softmax_bench.parallel.layer import all_processes
from softmax_bench.parallel.traffic import Traffic
from softmax_bench.parallel.training.data import sum_dense, sum_rows
from softmax_bench.parallel.training.train import nats, own_windows, train_steps
from tests.parallel.checks import PAIRS, H, pair
from tests.parallel.processes import check

WINDOW, STEPS = 10, 6
CLIP_NORM = 0.05
"""Small enough that every step is clipped."""


def language_model(layer: OutputLayer) -> LanguageModel:
    return LanguageModel(layer, encoder="gru", embedding_size=H).double()


def text(classes: int) -> Streams:
    tokens = torch.randint(classes, (6 * 40 - 3,)).numpy()  # the last stream has ignored places
    return make_streams(tokens, 6, 0)


def alone_and_together(
    alone: LanguageModel, together: DataParallel, streams: Streams, optimizer: str
) -> None:
    """Train both, and compare losses, parameters and perplexity."""
    rules = [make_optimizer(optimizer, m.parameters(), 0.01) for m in (alone, together.model)]
    torch.manual_seed(3)
    wanted = plain_steps(alone, rules[0], streams)
    torch.manual_seed(3)
    found = train_steps(
        together, rules[1], streams, window=WINDOW, steps=STEPS, clip_norm=CLIP_NORM
    )
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(together.whole_state(), alone.state_dict())
    assert abs(nats(together, streams, 7) - evaluate(alone, streams, 7).nats) < 1e-9


def plain_steps(model: LanguageModel, optimizer: Optimizer, streams: Streams) -> list[float]:
    losses: list[float] = []
    while len(losses) < STEPS:
        state = None
        for inputs, targets in streams.windows(WINDOW):
            optimizer.zero_grad()
            loss, state = model(inputs, targets, state)
            loss.backward()
            assert float(clip_grad_norm(model.parameters(), CLIP_NORM)) > CLIP_NORM
            optimizer.step()
            losses.append(float(loss.detach()))
            if len(losses) == STEPS:
                break
    return losses


@check
def copies_learn_as_one_does_from_the_joint_batch() -> None:
    streams = text(90)
    for layer in ("full", "hierarchical", "sampled(num_samples=20)", "nce(num_samples=20)"):
        torch.manual_seed(0)
        alone = language_model(create_layer(layer, H, 90, sparse=True))
        torch.manual_seed(1 + dist.get_rank())
        copy = language_model(create_layer(layer, H, 90, sparse=True))
        if dist.get_rank() == 0:  # what the first process has is what all begin with
            copy.load_state_dict(alone.state_dict())
        alone_and_together(alone, DataParallel(copy), streams, "adam")
        for name, parameter in copy.named_parameters():
            grad, wanted = parameter.grad, alone.get_parameter(name).grad
            assert grad is not None
            assert wanted is not None
            assert grad.is_sparse == wanted.is_sparse, name
            if grad.is_sparse:
                assert grad.is_coalesced(), name
                assert torch.equal(grad.indices(), wanted.coalesce().indices()), name


@check
def copies_stay_equal_to_the_last_bit() -> None:
    torch.manual_seed(0)
    model = language_model(create_layer("hierarchical", H, 90, sparse=True)).float()
    together = DataParallel(model)
    rule = make_optimizer("adam", model.parameters(), 0.01)
    train_steps(together, rule, text(90), window=WINDOW, steps=STEPS, clip_norm=CLIP_NORM)
    for value in model.parameters():
        first, second = side_by_side(value.detach().unsqueeze(0), 0, together.mesh)
        assert torch.equal(first, second)


@check
def gradients_send_what_they_weigh() -> None:
    mesh = all_processes("cpu")
    dense = [nn.Parameter(torch.zeros(5, 3)), nn.Parameter(torch.zeros(7))]
    for parameter in dense:
        parameter.grad = torch.ones_like(parameter)
    rows = nn.Parameter(torch.zeros(50, 4))
    touched = torch.arange(2 + 3 * dist.get_rank())  # two and five rows: five are sent by both
    rows.grad = row_sparse(touched, torch.ones(len(touched), 4), 50)
    nothing = nn.Parameter(torch.zeros(9))
    with Traffic() as traffic:
        sum_dense(dense, mesh)
        sum_rows([rows, nothing], mesh)
    # An all-reduce of 22 numbers; of rows, their counts, ids and values.
    assert traffic.bytes == 22 * 4 + 2 * 8 + 5 * (8 + 4 * 4)
    for parameter in dense:
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.full_like(parameter, 2.0))
    assert rows.grad.is_coalesced()
    assert rows.grad.indices().tolist() == [[0, 1, 2, 3, 4]]
    assert rows.grad.values()[:, 0].tolist() == [2, 2, 1, 1, 1]
    assert nothing.grad is not None
    assert nothing.grad.is_sparse


@check
def copies_around_a_divided_layer_learn_as_one_does() -> None:
    streams = text(91)
    for single, parallel, options in PAIRS:
        torch.manual_seed(0)
        layer, divided = pair(single, parallel, options, 91, torch.float64)
        divided.tokens = "divided"
        alone, copy = language_model(layer), language_model(divided)
        rest = {n: v for n, v in alone.state_dict().items() if not n.startswith("layer.")}
        copy.load_state_dict(rest, strict=False)
        alone_and_together(alone, DataParallel(copy), streams, "adagrad")


@check
def what_cannot_be_trained_together_is_refused() -> None:
    with pytest.raises(SoftmaxBenchError, match="tokens='divided'"):
        DataParallel(language_model(ParallelFullSoftmax(H, 5)))
    streams = make_streams(torch.zeros(1, dtype=torch.int64).numpy(), 1, 0)
    with pytest.raises(SoftmaxBenchError, match="too few for 2 processes"):
        next(own_windows(streams, 3, all_processes("cpu")))
