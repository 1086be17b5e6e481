"""The passes over all classes as operators that ``torch.compile`` keeps whole in its graphs.

Traced, a blocked pass would be unrolled; left out, it would break the graph. As operators of their
own they are one node each, whatever the number of classes. Their gradients are dense: row-sparse
ones torch cannot compile. Outside a compiled model nothing here is used.
"""

from typing import Any

import torch
from torch import Tensor

from softmax_bench.ops.cpu import all_classes
from softmax_bench.ops.cpu.exponentials import accumulator


@torch.library.custom_op("softmax_bench::cross_entropy", mutates_args=())
def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    penalty: float,
) -> list[Tensor]:
    """Loss of :func:`all_classes.cross_entropy`, and gradients in the operands there are."""
    operands = hidden, weight, bias, target, coefficient, penalty
    loss, gradients = all_classes.cross_entropy(*operands)
    return [loss, *_present(gradients)]


@cross_entropy.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    coefficient: Tensor,
    penalty: float,
) -> list[Tensor]:
    loss = hidden.new_empty((), dtype=accumulator(hidden.dtype))
    return [loss, *(torch.empty_like(x) for x in (hidden, weight, bias) if x is not None)]


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.save_for_backward(*output[1:])


def _hand_out(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    held = [gradient * grads[0].to(gradient.dtype) for gradient in ctx.saved_tensors]
    return (*held, *(None,) * (6 - len(held)))


cross_entropy.register_autograd(_hand_out, setup_context=_keep_gradients)


@torch.library.custom_op("softmax_bench::nll", mutates_args=())
def nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor
) -> tuple[Tensor, Tensor]:
    """:func:`all_classes.nll_and_log_z`."""
    return all_classes.nll_and_log_z(hidden, weight, bias, target)


@nll.register_fake
def _(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
    of_token = hidden.new_empty(hidden.shape[0], dtype=accumulator(hidden.dtype))
    return of_token, torch.empty_like(of_token)


@torch.library.custom_op("softmax_bench::nll_gradients", mutates_args=())
def nll_gradients(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    grad_nll: Tensor,
    grad_log_z: Tensor,
) -> list[Tensor]:
    """:func:`all_classes.nll_gradients` in the operands there are."""
    return _present(all_classes.nll_gradients(hidden, weight, bias, target, grad_nll, grad_log_z))


@nll_gradients.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    grad_nll: Tensor,
    grad_log_z: Tensor,
) -> list[Tensor]:
    return [torch.empty_like(x) for x in (hidden, weight, bias) if x is not None]


def _keep_operands(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _make_gradients(ctx: Any, grad_nll: Tensor, grad_log_z: Tensor) -> tuple[Tensor | None, ...]:
    made = nll_gradients(*ctx.saved_tensors, grad_nll, grad_log_z)
    return (*made, *(None,) * (4 - len(made)))


nll.register_autograd(_make_gradients, setup_context=_keep_operands)


def _present(gradients: all_classes.Parts) -> list[Tensor]:
    return [x for x in gradients if x is not None]
