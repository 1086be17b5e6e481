"""Optimisers whose step costs what the gradient costs: rows that got no gradient are not touched.

SGD without momentum and Adagrad leave a row without gradient as it is, so their row-sparse forms
give exactly the same parameters as the dense ones. Adam does not: its dense form moves every row
at every step by its running mean. The row-sparse form is *lazy* Adam, as in
``torch.optim.SparseAdam``, which treats a row's missing gradients as missing steps of its averages.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.ops import row_sparse

Parameters = list[dict[str, Any]]
"""Groups with their learning rates, as ``torch.optim`` takes them."""

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


_CHUNK = 2**17
"""Numbers updated at once: what is computed on the way stays in a core's cache (0.6 of the time of
all rows at once for Adagrad and Adam, measured at 5,000 rows of 256)."""


def _add_rows(to: Tensor, rows: Tensor, values: Tensor, factor: float) -> None:
    """``to[rows] += factor * values``, for distinct sorted rows.

    As the sum with a sparse tensor, which torch makes on all threads; its ``index_add_`` uses one.
    """
    to.add_(row_sparse(rows, values, to.shape[0]), alpha=factor)


class _RowOptimizer(torch.optim.Optimizer):
    """Base of the row-sparse optimisers: walks the parameters, leaves the rule to ``_update``."""

    def __init__(self, parameters: Parameters, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply the gradients. ``closure`` is not supported."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, values = row_gradient(parameter)
                    state = self.state[parameter]
                    self._begin(parameter, state)
                    size = max(1, _CHUNK // max(1, parameter[:1].numel()))
                    for some, of_them in zip(rows.split(size), values.split(size), strict=True):
                        self._update(parameter, some, of_them, state, group["lr"])

    def _begin(self, parameter: Tensor, state: dict[str, Any]) -> None:
        """Make the state at the first step, and count the steps where the rule wants that."""

    def _update(
        self, parameter: Tensor, rows: Tensor, values: Tensor, state: dict[str, Any], lr: float
    ) -> None:
        raise NotImplementedError


class RowSGD(_RowOptimizer):
    """Stochastic gradient descent on the rows that have a gradient."""

    def _update(
        self, parameter: Tensor, rows: Tensor, values: Tensor, state: dict[str, Any], lr: float
    ) -> None:
        _add_rows(parameter, rows, values, -lr)


class RowAdagrad(_RowOptimizer):
    """Adagrad (Duchi et al. 2011) on the rows that have a gradient."""

    def __init__(
        self, parameters: Parameters, lr: float, *, initial_accumulator_value: float = 0.0
    ) -> None:
        super().__init__(parameters, lr)
        self._start = initial_accumulator_value

    def _begin(self, parameter: Tensor, state: dict[str, Any]) -> None:
        if not state:
            state["sum"] = torch.full_like(parameter, self._start)

    def _update(
        self, parameter: Tensor, rows: Tensor, values: Tensor, state: dict[str, Any], lr: float
    ) -> None:
        _add_rows(state["sum"], rows, values * values, 1.0)
        root = state["sum"].index_select(0, rows).sqrt_().add_(_EPSILON["adagrad"])
        _add_rows(parameter, rows, torch.div(values, root, out=root), -lr)


class RowAdam(_RowOptimizer):
    """Lazy Adam (Kingma & Ba 2015) on the rows that have a gradient."""

    def _begin(self, parameter: Tensor, state: dict[str, Any]) -> None:
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1

    def _update(
        self, parameter: Tensor, rows: Tensor, values: Tensor, state: dict[str, Any], lr: float
    ) -> None:
        mean = state["mean"].index_select(0, rows)
        change = (values - mean).mul_(1 - _BETAS[0])
        _add_rows(state["mean"], rows, change, 1.0)
        mean += change
        square = state["square"].index_select(0, rows)
        change = torch.mul(values, values, out=change).sub_(square).mul_(1 - _BETAS[1])
        _add_rows(state["square"], rows, change, 1.0)
        square += change
        correction = [1 - beta ** state["step"] for beta in _BETAS]
        root = square.div_(correction[1]).sqrt_().add_(_EPSILON["adam"])
        _add_rows(parameter, rows, mean.div_(root), -lr / correction[0])


_RULES: dict[str, tuple[Callable[..., torch.optim.Optimizer], Callable[..., _RowOptimizer]]] = {
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

    def state_dict(self) -> list[dict[str, Any]]:
        """Of each part."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        """Go on where an optimiser of the same parameters was."""
        for part, of_one in zip(self.parts, state, strict=True):
            part.load_state_dict(of_one)

    def state_tensors(self) -> Iterator[Tensor]:
        """Everything that is remembered from step to step, counters left out."""
        for part in self.parts:
            for of_one in part.state.values():
                yield from (
                    value
                    for value in of_one.values()
                    if isinstance(value, Tensor) and value.dim() > 0
                )


def check_optimizer(name: str, initial_accumulator_value: float = 0.0) -> None:
    """Raise a SoftmaxBenchError if there is no such optimiser, or it cannot start so."""
    if name not in _RULES:
        near = difflib.get_close_matches(name, _RULES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SoftmaxBenchError(f"unknown optimizer {name!r}: choose {', '.join(_RULES)}{hint}")
    if initial_accumulator_value and name != "adagrad":
        raise SoftmaxBenchError(
            f"initial_accumulator_value is an option of adagrad, not of {name}: set it to 0"
        )
    if not 0 <= initial_accumulator_value < math.inf:
        raise SoftmaxBenchError(
            f"initial_accumulator_value must not be negative: {initial_accumulator_value}"
        )


def make_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    row_sparse: Iterable[nn.Parameter],
    lr: float,
    *,
    initial_accumulator_value: float = 0.0,
    layer: Iterable[nn.Parameter] = (),
    layer_rate: float = 1.0,
) -> PairedOptimizer:
    """An optimiser by name: ``"sgd"``, ``"adagrad"`` or ``"adam"``.

    Args:
        name: The rule.
        parameters: All parameters.
        row_sparse: Those of them whose gradients are row-sparse.
        lr: Learning rate.
        initial_accumulator_value: Where Adagrad's sums of squares start. From 0, the first
            gradient of a number moves it by the whole learning rate, however small it is.
        layer: Those parameters whose rate is ``layer_rate * lr``.
        layer_rate: That factor.

    Raises:
        SoftmaxBenchError: There is no such rule, a rate is not positive, or the rule has no sums
            of squares to start from.
    """
    check_optimizer(name, initial_accumulator_value)
    for rate in (lr, layer_rate):
        if not rate > 0:
            raise SoftmaxBenchError(f"the learning rate must be positive, not {rate}")
    sparse, of_layer = {id(p) for p in row_sparse}, {id(p) for p in layer}
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for parameter in parameters:
        kind = id(parameter) in sparse, id(parameter) in of_layer
        rate = layer_rate * lr if kind[1] else lr
        groups.setdefault(kind, {"params": [], "lr": rate})["params"].append(parameter)
    options: dict[str, float] = {}
    if initial_accumulator_value:
        options["initial_accumulator_value"] = initial_accumulator_value
    dense_rule, row_rule = _RULES[name]
    parts: list[torch.optim.Optimizer] = []
    if dense := [group for (is_sparse, _), group in groups.items() if not is_sparse]:
        parts.append(dense_rule(dense, lr=lr, fused=True, **options))
    if rows := [group for (is_sparse, _), group in groups.items() if is_sparse]:
        parts.append(row_rule(rows, lr, **options))
    return PairedOptimizer(parts)
