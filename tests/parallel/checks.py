"""Layers divided over two processes, against the same in one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, loss_parallel, parallelize_module
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import NCE, FullSoftmax, OutputLayer, SampledSoftmax, create_layer
from softmax_bench.measure import LayerStep
from softmax_bench.ops.cpu import softmax_loss
from softmax_bench.parallel import (
    ParallelFullSoftmax,
    ParallelNCE,
    ParallelOutputLayer,
    ParallelSampledSoftmax,
    create_parallel_layer,
)
from softmax_bench.parallel.exchange import side_by_side
from softmax_bench.parallel.layer import all_processes
from softmax_bench.parallel.plan import Device, Work, plan
from softmax_bench.parallel.traffic import Traffic
from softmax_bench.testing import check_output_layer
from tests.parallel.processes import check

H = 8
ALL_OPTIONS = {
    "label_smoothing": 0.2, "log_z_penalty": 0.1, "temperature": 0.7, "soft_cap": 6.0
}  # fmt: skip
PAIRS: list[tuple[type[OutputLayer], type[ParallelOutputLayer], dict[str, Any]]] = [
    (FullSoftmax, ParallelFullSoftmax, {}),
    (FullSoftmax, ParallelFullSoftmax, {"bias": False}),
    (FullSoftmax, ParallelFullSoftmax, {"label_smoothing": 0.2, "log_z_penalty": 0.1}),
    (FullSoftmax, ParallelFullSoftmax, {"soft_cap": 6.0}),
    (FullSoftmax, ParallelFullSoftmax, ALL_OPTIONS | {"soft_cap": 0.0}),
    (FullSoftmax, ParallelFullSoftmax, ALL_OPTIONS),
    (SampledSoftmax, ParallelSampledSoftmax, {"num_samples": 9}),
    (SampledSoftmax, ParallelSampledSoftmax, {"num_samples": 9, "replacement": True}),
    (SampledSoftmax, ParallelSampledSoftmax, {"num_samples": 9, "noise": "unigram", "bias": False}),
    (NCE, ParallelNCE, {"num_samples": 9, "log_z": 0.5}),
    (NCE, ParallelNCE, {"num_samples": 9, "log_z": "learned"}),
]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}
"""Absolute; losses and gradients are of the order of 1."""


def rank() -> int:
    return dist.get_rank()


def step(
    layer: OutputLayer, hidden: Tensor, target: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss, gradient of the hidden states, and gradients by name, of one step."""
    layer.zero_grad()
    hidden = hidden.clone().requires_grad_()
    loss = layer(hidden, target)
    (
        loss if loss.dim() == 0 else loss @ torch.linspace(1, 2, len(loss), dtype=loss.dtype)
    ).backward()
    assert hidden.grad is not None
    return loss.detach(), hidden.grad, gradients(layer)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: parameter.grad.to_dense()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def whole_gradients(layer: ParallelOutputLayer, own: dict[str, Tensor]) -> dict[str, Tensor]:
    collect = layer.vocabulary.collect
    return {n: collect(g) if n in ("weight", "bias") else g for n, g in own.items()}


@contextmanager
def small_blocks() -> Iterator[None]:
    """Many blocks of tokens and tiles of classes, as sizes beyond tests have."""
    with (
        mock.patch.object(softmax_loss, "BLOCK_ELEMENTS", 256),
        mock.patch.object(softmax_loss, "MIN_BLOCK_TOKENS", 4),
        mock.patch.object(softmax_loss, "TILE_ELEMENTS", 16),
    ):
        yield


def pair(
    single: type[OutputLayer], parallel: type[ParallelOutputLayer], options: dict[str, Any],
    classes: int, dtype: torch.dtype, **also: Any,
) -> tuple[OutputLayer, ParallelOutputLayer]:  # fmt: skip
    counts = torch.randint(0, 20, (classes,)).clamp(min=0) + (torch.arange(classes) == 0)
    also |= {"class_counts": counts, "dtype": dtype}
    if options.keys() >= ALL_OPTIONS.keys():
        also["class_weight"] = torch.rand(classes)
    alone = single(H, classes, **options, **also)
    together = parallel(H, classes, **options, **also)
    together.load_whole_state(alone.state_dict())
    return alone, together


def drawn(layer: OutputLayer, hidden: Tensor, target: Tensor) -> Any:
    torch.manual_seed(5)
    return step(layer, hidden, target)


@check
def losses_and_gradients_are_those_of_one_process() -> None:
    sizes = [(2, torch.float64, "mean"), (5, torch.float64, "sum")]
    sizes += [(700, torch.float64, "none"), (700, torch.float32, "mean")]
    for (single, parallel, options), (classes, dtype, reduction) in itertools.product(PAIRS, sizes):
        torch.manual_seed(classes)
        alone, together = pair(single, parallel, options, classes, dtype, reduction=reduction)
        hidden, target = torch.randn(11, H, dtype=dtype), torch.randint(classes, (11,))
        target[3] = -100
        wanted = drawn(alone, hidden, target)
        if rank() == 1:
            torch.manual_seed(99)  # a generator in another state must not matter
            found = step(together, hidden, target)
        else:
            found = drawn(together, hidden, target)
        loss, of_hidden, own = found
        torch.testing.assert_close(loss, wanted[0], rtol=0, atol=TOLERANCE[dtype])
        torch.testing.assert_close(of_hidden, wanted[1], rtol=0, atol=TOLERANCE[dtype])
        torch.testing.assert_close(
            whole_gradients(together, own), wanted[2], rtol=0, atol=TOLERANCE[dtype]
        )


@check
def each_process_with_tokens_of_its_own() -> None:
    for single, parallel, options in PAIRS:
        for reduction in ("mean", "none"):
            alone, together = pair(
                single, parallel, options, 700, torch.float64, reduction=reduction
            )
            together.tokens = "divided"
            hidden, target = torch.randn(11, H).double(), torch.randint(700, (11,))
            target[1] = -100
            here = slice(0, 4) if rank() == 0 else slice(4, 11)
            if reduction == "none":  # each process weighs its own tokens
                hidden, target = hidden[:8], target[:8]
                here = slice(4 * rank(), 4 * rank() + 4)
                alone.reduction = "none"
            loss, of_hidden, own = drawn(together, hidden[here], target[here])
            if reduction == "none":
                weights = torch.linspace(1, 2, 4).double().repeat(2)
                states = hidden.clone().requires_grad_()
                torch.manual_seed(5)
                losses = alone(states, target)
                (losses @ weights).backward()
                assert states.grad is not None
                wanted = losses.detach()[here], states.grad, gradients(alone)
            else:
                wanted = drawn(alone, hidden, target)
            torch.testing.assert_close(loss, wanted[0])
            torch.testing.assert_close(of_hidden, wanted[1][here])
            torch.testing.assert_close(whole_gradients(together, own), wanted[2])
            torch.testing.assert_close(
                together.log_prob(hidden[here]), alone.log_prob(hidden)[here]
            )
            torch.testing.assert_close(
                together.target_log_prob(hidden[here], target[here]),
                alone.target_log_prob(hidden, target)[here],
            )
            for one, other in zip(
                together.topk(hidden[here], 5), alone.topk(hidden, 5), strict=True
            ):
                torch.testing.assert_close(one, other[here])
            claims = alone.unnormalized_target_log_prob(hidden, target)
            if claims is not None:
                found = together.unnormalized_target_log_prob(hidden[here], target[here])
                torch.testing.assert_close(found, claims[here])


@check
def many_blocks_of_tokens_and_tiles_of_classes() -> None:
    for single, parallel, options in PAIRS:
        alone, together = pair(single, parallel, options, 701, torch.float64)
        hidden, target = torch.randn(50, H).double(), torch.randint(701, (50,))
        wanted = drawn(alone, hidden, target)
        with small_blocks():
            loss, of_hidden, own = drawn(together, hidden, target)
        torch.testing.assert_close(loss, wanted[0])
        torch.testing.assert_close(of_hidden, wanted[1])
        torch.testing.assert_close(whole_gradients(together, own), wanted[2])


@check
def the_whole_contract() -> None:
    for _, parallel, options in PAIRS:

        def factory(width: int, classes: int, **also: Any) -> OutputLayer:
            return parallel(width, classes, **options, **also)  # noqa: B023

        check_output_layer(factory, sizes=(2, 3, 17))


def dealt(layer: ParallelOutputLayer, first: int, number: int) -> Iterator[slice]:
    """This process's tokens: first if all processes have all of them, then if each has its own."""
    for tokens, here in (
        ("shared", slice(None)),
        ("divided", slice(0, first) if rank() == 0 else slice(first, number)),
    ):
        layer.tokens = tokens  # type: ignore[assignment]
        yield here


@check
def statistics_of_tokens() -> None:
    hidden = torch.randn(6, H).double()
    weights = torch.linspace(1, 2, 18).double().view(6, 3)
    for options in ({}, ALL_OPTIONS):
        alone, together = pair(FullSoftmax, ParallelFullSoftmax, options, 31, torch.float64)
        target = torch.randint(31, (6,))
        target[1] = -100
        target[4] = alone.topk(hidden[4], 1)[1]

        def statistics(layer: OutputLayer, part: slice) -> list[Tensor]:
            states = hidden[part].clone().requires_grad_()
            assert isinstance(layer, FullSoftmax)
            found = layer.token_statistics(states, target[part])  # noqa: B023
            layer.zero_grad()
            sums = torch.stack(found[:3], 1)
            (sums * weights[part]).sum().backward()
            assert states.grad is not None
            return [sums.detach(), states.grad, found.correct]

        wanted = statistics(alone, slice(None))
        assert wanted[2][4]
        for here in dealt(together, 2, 6):
            for ours, of_all in zip(statistics(together, here), wanted, strict=True):
                torch.testing.assert_close(ours, of_all[here])
            own = gradients(together)
            torch.testing.assert_close(whole_gradients(together, own), gradients(alone))


@check
def several_positives() -> None:
    for single, parallel, options in PAIRS:
        alone, together = pair(single, parallel, options, 31, torch.float64)
        hidden, target = torch.randn(6, H).double(), torch.randint(31, (6, 3))
        target[0, 1:] = target[3] = -100
        wanted = drawn(alone, hidden, target)
        for here in dealt(together, 4, 6):
            loss, of_hidden, own = drawn(together, hidden[here], target[here])
            torch.testing.assert_close(loss, wanted[0])
            torch.testing.assert_close(of_hidden, wanted[1][here])
            torch.testing.assert_close(whole_gradients(together, own), wanted[2])


@check
def states_go_both_ways_and_wrong_ones_are_refused() -> None:
    alone, together = pair(
        NCE, ParallelNCE, {"log_z": "learned", "num_samples": 3}, 13, torch.float64
    )
    whole = together.whole_state()
    assert whole.keys() == alone.state_dict().keys()
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(whole[name], value, rtol=0, atol=0)
    before = together.weight.detach().clone()
    with pytest.raises(SoftmaxBenchError, match="7 rows"):
        together.load_whole_state({"weight": torch.zeros(7, H), "bias": torch.zeros(7)})
    assert torch.equal(together.weight, before)


@check
def draws_from_the_model_agree_whatever_the_generators() -> None:
    layer = ParallelFullSoftmax(H, 40)
    hidden = torch.randn(500, H)
    torch.manual_seed(rank())
    drawn_here = layer.sample(hidden)
    of_both = side_by_side(drawn_here.unsqueeze(0), 0, layer.mesh)
    assert torch.equal(of_both[0], of_both[1])
    assert len(drawn_here.unique()) == 40


@check
def generators_that_are_alike_stay_alike() -> None:
    hidden, target = (
        torch.randn(6, H),
        torch.randint(9, (6,)),
    )  # five classes here, four there
    for _, parallel, options in PAIRS:
        layer = parallel(H, 9, **options)
        torch.manual_seed(8)
        layer(hidden, target)
        layer.sample(hidden)
        first, second = side_by_side(torch.rand(1, 3), 0, layer.mesh)
        assert torch.equal(first, second), layer


@check
def scores_too_large_for_exponentials_and_classes_that_cannot_be() -> None:
    alone, together = pair(FullSoftmax, ParallelFullSoftmax, {}, 90, torch.float32)
    hidden, target = 1e4 * torch.randn(30, H), 2 * torch.randint(45, (30,))
    impossible = alone.state_dict()
    impossible["bias"][1::2] = -torch.inf  # all classes of the second process
    alone.load_state_dict(impossible)
    together.load_whole_state(impossible)
    wanted, found = step(alone, hidden, target), step(together, hidden, target)
    torch.testing.assert_close(found[:2], wanted[:2])
    torch.testing.assert_close(whole_gradients(together, found[2]), wanted[2])
    torch.testing.assert_close(
        together.target_log_prob(hidden, target), alone.target_log_prob(hidden, target)
    )


@check
def fresh_rows_differ_between_processes_with_equal_generators() -> None:
    layer = ParallelFullSoftmax(H, 10)
    first, second = layer.whole_state()["weight"].view(5, 2, H).unbind(1)
    assert not torch.isclose(first, second).any()


@check
def torchs_own_loss_parallel_gives_the_same() -> None:
    alone, together = pair(FullSoftmax, ParallelFullSoftmax, {}, 500, torch.float64)
    hidden, target = torch.randn(40, H).double(), torch.randint(500, (40,))
    of_torch = nn.Linear(H, 500, dtype=torch.float64)
    of_torch.load_state_dict(alone.state_dict())
    mesh = all_processes("cpu")
    style = ColwiseParallel(output_layouts=Shard(1), use_local_output=False)
    parallelize_module(of_torch, mesh, style)
    states = hidden.clone().requires_grad_()
    with loss_parallel(), Traffic() as theirs:
        loss = F.cross_entropy(of_torch(states), target)
        loss.backward()
    with Traffic() as ours:
        own_loss, of_hidden, own = step(together, hidden, target)
    of_theirs: Any = loss.detach()
    assert isinstance(of_theirs, DTensor)
    torch.testing.assert_close(own_loss, of_theirs.full_tensor())
    torch.testing.assert_close(of_hidden, states.grad)
    for name, gradient in whole_gradients(together, own).items():
        of_theirs = of_torch.get_parameter(name).grad
        assert isinstance(of_theirs, DTensor)
        torch.testing.assert_close(gradient, of_theirs.full_tensor())
    assert ours.bytes == theirs.bytes  # the maximum and the sum of a token in one exchange less
    assert ours.exchanges < theirs.exchanges


@check
def bytes_sent_are_those_of_the_cost_model() -> None:
    for tokens in ("shared", "divided"):
        for _, parallel, options in PAIRS:
            layer = parallel(H, 300, tokens=tokens, **options)
            number = 24 if tokens == "shared" else 12
            with Traffic() as traffic:
                step(layer, torch.randn(number, H), torch.randint(300, (number,)))
            expected = layer.traffic(24)
            assert traffic.bytes == expected.bytes, (layer, traffic.sent, expected)
            assert traffic.exchanges == expected.exchanges, (layer, traffic.sent, expected)


@check
def products_in_a_lower_type_under_autocast() -> None:
    for single, parallel, options in PAIRS:
        alone, together = pair(single, parallel, options, 300, torch.float32)
        hidden, target = torch.randn(40, H), torch.randint(300, (40,))
        with torch.autocast("cpu", torch.bfloat16):
            wanted, found = drawn(alone, hidden, target), drawn(together, hidden, target)
        assert found[0].dtype == torch.float32
        torch.testing.assert_close(found[0], wanted[0], rtol=1e-2, atol=0)
        torch.testing.assert_close(found[1], wanted[1], rtol=0.05, atol=1e-3)
        torch.testing.assert_close(
            whole_gradients(together, found[2]), wanted[2], rtol=0.05, atol=1e-2
        )


@check
def small_weights_do_not_vanish_in_float16() -> None:
    small = torch.full((200,), 1e-5)
    for single, parallel, options in PAIRS:
        alone, together = pair(single, parallel, options, 300, torch.float32)
        hidden, target = torch.randn(200, H), torch.randint(300, (200,))
        torch.manual_seed(5)
        (1e5 * alone(hidden, target, small)).backward()
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.float16):
            loss = together(hidden, target, small)
        (1e5 * loss).backward()  # as a scaler does
        exact = gradients(alone)["weight"]
        ours = whole_gradients(together, gradients(together))["weight"]
        assert float((ours - exact).norm() / exact.norm()) < 0.01, (parallel, options)


def held(layer: OutputLayer) -> int:
    memory = LayerStep(layer, 128).memory()
    return memory.parameters + memory.optimizer + memory.peak


@check
def memory_is_about_half_and_as_planned() -> None:
    classes, width = 20_000, 32
    for spec, samples in (("full", None), ("sampled(num_samples=500)", 500)):
        alone = held(create_layer(spec, width, classes, sparse=True))
        together = held(create_parallel_layer(spec, width, classes, sparse=True))
        assert 0.45 < together / alone < 0.58, (spec, together / alone)
        planned = plan(Work(classes, 2, samples, tokens=64, width=width), Device()).memory
        assert 0.9 < planned / together < 1.1, (spec, planned / together)


@check
def what_cannot_be_divided_is_refused() -> None:
    for spec, message in (
        ("hierarchical", "'hierarchical' cannot be sharded"),
        ("nce(shared=False)", "no option 'shared'"),
        ("nce(log_z='estimated')", "log_z must be a number or 'learned'"),
        ("full(save_memory=True)", "no option 'save_memory'"),
        ("sampled(label_smoothing=0.1)", "no option 'label_smoothing'"),
    ):
        with pytest.raises(SoftmaxBenchError, match=message):
            create_parallel_layer(spec, H, 9)
    with pytest.raises(SoftmaxBenchError, match="tokens must be"):
        create_parallel_layer("full", H, 9, tokens="mine")
    with pytest.raises(SoftmaxBenchError, match="1 classes cannot be sharded over 2 processes"):
        create_parallel_layer("full", H, 1)
    with pytest.raises(SoftmaxBenchError, match="cannot tell how many bytes"), Traffic():
        dist.gather(torch.ones(1), [torch.ones(1)] * 2 if rank() == 0 else None)
