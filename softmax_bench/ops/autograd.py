"""Losses whose gradients are computed with them, in one pass, and returned by the backward.

Once the weight of each token in the loss is known, its gradients need no second look at the scores.
So the forward computes them, and the backward only multiplies them by the incoming gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor

from softmax_bench.ops.cpu.scaling import scale_

Wanted = Sequence[bool]
"""Whether each operand needs a gradient."""
Gradients = tuple[Tensor | None, ...]
"""Gradients of each operand; None if not needed."""
F = TypeVar("F", bound=torch.autograd.Function)
Fused = Callable[..., tuple[Tensor, Gradients]]
"""Called with :data:`Wanted` and the operands; returns a scalar loss and its gradients in them."""


def fused_loss(run: Fused, *operands: Tensor | None) -> Tensor:
    """The loss that ``run`` computes of these operands, differentiable once and in one backward."""
    loss: Tensor = _FusedLoss.apply(run, *operands)
    return loss


def weighted_loss(
    loss: Callable[[Tensor], Tensor], coefficient: Tensor, dtype: torch.dtype
) -> Tensor:
    """``loss(coefficient)`` of a loss that is linear in the tokens' coefficients (N,).

    Divided by the number of tokens, gradients in float16 scores would underflow. There they are
    computed for coefficients near 1, and the backward scales what has been summed.
    """
    if dtype != torch.float16:
        return loss(coefficient)
    unit = coefficient.abs().sum() / max(1, min(coefficient.shape[0], 4096))
    unit = unit.clamp(min=torch.finfo(unit.dtype).tiny)
    return unit * loss(coefficient / unit)


_caller: ContextVar[str] = ContextVar("caller", default="this operation of softmax_bench.ops")


@contextmanager
def called_by(name: str) -> Iterator[None]:
    """Let errors in the backward of what is computed here start with a name that users know."""
    token = _caller.set(name)
    try:
        yield
    finally:
        _caller.reset(token)


def no_second_derivative(function: type[F]) -> type[F]:
    """Make differentiating the backward of an autograd function an error.

    ``torch.autograd.function.once_differentiable`` detaches the gradients from the operands, and
    raises only when the detached end is reached: ``torch.autograd.grad`` never goes there, and a
    gradient penalty would silently lack a term. Here, the gradients stay connected to what was
    saved.
    """
    forward: Callable[..., Any] = function.forward
    backward: Callable[..., Gradients] = function.backward

    @functools.wraps(forward)
    def remember_caller(ctx: Any, *operands: Any) -> Any:
        ctx.caller = _caller.get()
        return forward(ctx, *operands)

    @functools.wraps(backward)
    def connected(ctx: Any, *grads: Tensor) -> Gradients:
        with torch.no_grad():
            made = backward(ctx, *grads)
        if not torch.is_grad_enabled():  # the graph of the gradients is not requested
            return made
        sources = [x for x in (*grads, *ctx.saved_tensors) if x is not None and x.requires_grad]
        there = [x for x in made if x is not None]
        if not sources or not there:
            return made
        same = iter(_Raising.apply(ctx.caller, len(there), *there, *sources))
        return tuple(None if x is None else next(same) for x in made)

    function.forward = staticmethod(remember_caller)  # type: ignore[method-assign]
    function.backward = staticmethod(connected)  # type: ignore[method-assign]
    return function


class _Raising(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, caller: str, number: int, *gradients_and_sources: Tensor) -> Gradients:
        ctx.caller = caller
        return tuple(x.detach() for x in gradients_and_sources[:number])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        raise RuntimeError(
            f"{ctx.caller} has no second derivative here, because its gradients are computed "
            "without a graph of their own: for a gradient penalty or a Hessian-vector product, "
            "compute the loss from a layer's log_prob, which torch differentiates as often as it "
            "is asked to"
        )


class _Source(torch.autograd.Function):
    """An empty tensor that is connected to the operands without holding their memory."""

    @staticmethod
    def forward(ctx: Any, *operands: Tensor | None) -> Tensor:
        first = next(x for x in operands if x is not None)
        return first.new_empty(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        raise AssertionError("nothing is computed from it")


def differentiable_once(*operands: Tensor) -> tuple[Tensor, ...]:
    """The same operands, for a function whose gradients would silently lack a graph."""
    same: tuple[Tensor, ...] = _DifferentiableOnce.apply(*operands)
    return same


@no_second_derivative
class _DifferentiableOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *operands: Tensor) -> Gradients:
        ctx.save_for_backward(*operands)
        return tuple(x.view_as(x) for x in operands)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        return grads


@no_second_derivative
class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Fused, *operands: Tensor | None) -> Tensor:
        if any(ctx.needs_input_grad):
            with torch.enable_grad():
                ctx.save_for_backward(_Source.apply(*operands))
        loss, gradients = run(ctx.needs_input_grad[1:], *operands)
        ctx.held = PrecomputedGradients(gradients, ctx.caller)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.held.times(grad))


class PrecomputedGradients:
    """Gradients of a scalar loss of ``caller``, which can be taken once."""

    def __init__(self, gradients: Gradients, caller: str) -> None:
        self._gradients: Gradients | None = gradients
        self._caller = caller

    def times(self, upstream: Tensor) -> Gradients:
        """The gradients times the incoming gradient of the loss.

        Raises:
            RuntimeError: They were taken before. They are not kept, because torch must be able to
                use them as the parameters' ``.grad`` without a copy.
        """
        if self._gradients is None:
            raise RuntimeError(
                f"{self._caller} computed the gradients of this loss with it and has handed them "
                "out: call forward again before a second backward (retain_graph has no effect here)"
            )
        gradients, self._gradients = self._gradients, None
        for gradient in gradients:
            if gradient is not None:
                scale_(gradient._values() if gradient.is_sparse else gradient, upstream)
        return gradients
