"""Optimisers whose step costs what the gradient costs: rows that got no gradient are not touched.

SGD without momentum and Adagrad leave a row without gradient as it is, so their row-sparse forms
give exactly the same parameters as the dense ones. Adam does not: its dense form moves every row
at every step by its running mean. The row-sparse form is *lazy* Adam, as in
``torch.optim.SparseAdam``, which treats a row's missing gradients as missing steps of its averages.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from softmax_bench.errors import SoftmaxBenchError

_EPSILON = {"adagrad": 1e-10, "adam": 1e-8}
_BETAS = (0.9, 0.999)


def row_gradient(parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
    """Distinct rows and values of a row-sparse gradient; a gradient that is a sum is added up."""
    grad = parameter.grad
    assert grad is not None
    if not grad.is_coalesced():
        grad = parameter.grad = grad.coalesce()
    return grad.indices()[0], grad.values()


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients together so that their joint 2-norm is at most ``max_norm``.

    As ``torch.nn.utils.clip_grad_norm_``, which refuses row-sparse gradients on a CPU. Cost is
    that of the stored values.

    Returns:
        The norm before clipping.
    """
    stored = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        stored.append(row_gradient(parameter)[1] if parameter.grad.is_sparse else parameter.grad)
    if not stored:
        return torch.tensor(0.0)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(stored)))
    torch._foreach_mul_(stored, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


class _RowOptimizer(torch.optim.Optimizer):
    """Base of the row-sparse optimisers: walks the parameters, leaves the rule to ``_update``."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(list(parameters), {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply the gradients. ``closure`` is not supported."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, values = row_gradient(parameter)
                    self._update(parameter, rows, values, self.state[parameter], group["lr"])

    def _update(
        self, parameter: Tensor, rows: Tensor, values: Tensor, state: dict[str, Any], lr: float
    ) -> None:
        raise NotImplementedError


class RowSGD(_RowOptimizer):
    """Stochastic gradient descent on the rows that have a gradient."""

    def _update(
        self, parameter: Tensor, rows: Tensor, values: Tensor, state: dict[str, Any], lr: float
    ) -> None:
        parameter.index_add_(0, rows, values, alpha=-lr)


class RowAdagrad(_RowOptimizer):
    """Adagrad (Duchi et al. 2011) on the rows that have a gradient."""

    def _update(
        self, parameter: Tensor, rows: Tensor, values: Tensor, state: dict[str, Any], lr: float
    ) -> None:
        if "sum" not in state:
            state["sum"] = torch.zeros_like(parameter)
        total = state["sum"].index_select(0, rows).addcmul_(values, values)
        state["sum"].index_copy_(0, rows, total)
        parameter.index_add_(0, rows, values / total.sqrt_().add_(_EPSILON["adagrad"]), alpha=-lr)


class RowAdam(_RowOptimizer):
    """Lazy Adam (Kingma & Ba 2015) on the rows that have a gradient."""

    def _update(
        self, parameter: Tensor, rows: Tensor, values: Tensor, state: dict[str, Any], lr: float
    ) -> None:
        if "step" not in state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        mean = state["mean"].index_select(0, rows).lerp_(values, 1 - _BETAS[0])
        square = state["square"].index_select(0, rows)
        square.mul_(_BETAS[1]).addcmul_(values, values, value=1 - _BETAS[1])
        state["mean"].index_copy_(0, rows, mean)
        state["square"].index_copy_(0, rows, square)
        correction = [1 - beta ** state["step"] for beta in _BETAS]
        root = square.div_(correction[1]).sqrt_().add_(_EPSILON["adam"])
        parameter.index_add_(0, rows, mean / root, alpha=-lr / correction[0])


_RULES: dict[str, tuple[Callable[..., torch.optim.Optimizer], type[_RowOptimizer]]] = {
    "adagrad": (torch.optim.Adagrad, RowAdagrad),
    "adam": (torch.optim.Adam, RowAdam),
    "sgd": (torch.optim.SGD, RowSGD),
}


class PairedOptimizer:
    """One rule for dense and row-sparse parameters together."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts

    def step(self) -> None:
        """Apply the gradients."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)


def check_optimizer(name: str) -> None:
    """Raise a SoftmaxBenchError if there is no optimiser of that name."""
    if name not in _RULES:
        near = difflib.get_close_matches(name, _RULES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SoftmaxBenchError(f"unknown optimizer {name!r}: choose {', '.join(_RULES)}{hint}")


def make_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    row_sparse: Iterable[nn.Parameter],
    lr: float,
) -> PairedOptimizer:
    """An optimiser by name: ``"sgd"``, ``"adagrad"`` or ``"adam"``.

    Args:
        name: The rule.
        parameters: All parameters.
        row_sparse: Those of them whose gradients are row-sparse.
        lr: Learning rate.

    Raises:
        SoftmaxBenchError: There is no such rule, or the rate is not positive.
    """
    check_optimizer(name)
    if not lr > 0:
        raise SoftmaxBenchError(f"the learning rate must be positive, not {lr}")
    sparse = {id(p): p for p in row_sparse}
    dense = [p for p in parameters if id(p) not in sparse]
    dense_rule, row_rule = _RULES[name]
    parts: list[torch.optim.Optimizer] = []
    if dense:
        parts.append(dense_rule(dense, lr=lr, fused=True))
    if sparse:
        parts.append(row_rule(sparse.values(), lr))
    return PairedOptimizer(parts)
