"""The passes over all classes as operators that ``torch.compile`` keeps whole in its graphs.

If traced, a blocked pass would be unrolled; if left out, it would break the graph. As an operator,
it is one node for any number of classes. Gradients are dense, because torch cannot compile
row-sparse ones. Nothing here is used outside a compiled model.
"""

from typing import Any

import torch
from torch import Tensor

from softmax_bench.ops.cpu import all_classes
from softmax_bench.ops.cpu.exponentials import accumulator
from softmax_bench.ops.objective import Objective, Terms, TokenSums, pulls_of

_ALL = True, True, True


@torch.library.custom_op("softmax_bench::cross_entropy", mutates_args=())
def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    penalty: float,
    label_smoothing: float,
    soft_cap: float,
    class_weight: Tensor | None,
    save_memory: bool,
) -> list[Tensor]:
    """Loss of :func:`all_classes.cross_entropy`, and gradients in the existing operands."""
    objective = Objective(penalty, label_smoothing, soft_cap, class_weight)
    operands = hidden, weight, bias, target, coefficient, objective
    loss, parts = all_classes.cross_entropy(*operands, wanted=_ALL, save_memory=save_memory)
    return [loss, *(x for x in parts if x is not None)]


@cross_entropy.register_fake
def _(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, *rest: Any
) -> list[Tensor]:
    loss = hidden.new_empty((), dtype=accumulator(hidden.dtype))
    return [loss, *(torch.empty_like(x) for x in (hidden, weight, bias) if x is not None)]


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.save_for_backward(*output[1:])


def _hand_out(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    held = [gradient * grads[0].to(gradient.dtype) for gradient in ctx.saved_tensors]
    return (*held, *(None,) * (10 - len(held)))


cross_entropy.register_autograd(_hand_out, setup_context=_keep_gradients)


@torch.library.custom_op("softmax_bench::token_sums", mutates_args=())
def token_sums(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    soft_cap: float,
    class_weight: Tensor | None,
    mean: bool,
    expected: bool,
    best: bool,
    save_memory: bool,
) -> list[Tensor]:
    """The requested sums of :func:`all_classes.token_sums`."""
    terms = Terms(soft_cap, class_weight, mean, expected, best, save_memory)
    sums = all_classes.token_sums(hidden, weight, bias, target, terms)
    return [of for of in sums if of is not None]


@token_sums.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    soft_cap: float,
    class_weight: Tensor | None,
    mean: bool,
    expected: bool,
    best: bool,
    save_memory: bool,
) -> list[Tensor]:
    dtype = accumulator(hidden.dtype)
    sums = [hidden.new_empty(hidden.shape[0], dtype=dtype) for _ in range(2 + mean + expected)]
    return [*sums, torch.empty_like(target)] if best else sums


@torch.library.custom_op("softmax_bench::token_sum_gradients", mutates_args=())
def token_sum_gradients(
    grads: list[Tensor],
    log_z: Tensor,
    expected_score: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    soft_cap: float,
    class_weight: Tensor | None,
    mean: bool,
    expected: bool,
    save_memory: bool,
) -> list[Tensor]:
    """:func:`all_classes.token_sum_gradients` in the existing operands."""
    terms = Terms(soft_cap, class_weight, mean, expected, save_memory=save_memory)
    sums = TokenSums(log_z, log_z, None, expected_score)
    operands = hidden, weight, bias, target, terms
    pulls = pulls_of(terms, grads)
    parts = all_classes.token_sum_gradients(pulls, sums, *operands, wanted=_ALL)
    return [x for x in parts if x is not None]


@token_sum_gradients.register_fake
def _(
    grads: list[Tensor],
    log_z: Tensor,
    expected_score: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *rest: Any,
) -> list[Tensor]:
    return [torch.empty_like(x) for x in (hidden, weight, bias) if x is not None]


def _keep_operands(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    hidden, weight, bias, target, ctx.soft_cap, class_weight, *wanted, ctx.save_memory = inputs
    ctx.mean, ctx.expected, _ = wanted
    expected = output[2 + ctx.mean] if ctx.expected else None
    ctx.save_for_backward(output[1], expected, hidden, weight, bias, target, class_weight)


def _make_gradients(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    *operands, class_weight = ctx.saved_tensors
    options = ctx.soft_cap, class_weight, ctx.mean, ctx.expected, ctx.save_memory
    made = token_sum_gradients(grads[: 2 + ctx.mean + ctx.expected], *operands, *options)
    return (*made, *(None,) * (10 - len(made)))


token_sums.register_autograd(_make_gradients, setup_context=_keep_operands)
