"""Optimisers whose step costs what the gradient costs: rows that got no gradient are not touched.

SGD without momentum and Adagrad leave a row without gradient as it is, so their row-sparse forms
give exactly the same parameters as the dense ones. Adam does not: its dense form moves every row
at every step by its running mean. The row-sparse form is *lazy* Adam, as in
``torch.optim.SparseAdam``, which treats a row's missing gradients as missing steps of its averages.
AdamW's decay is as lazy: a row shrinks only in the steps that touch it, so rare classes, which need
it least, are held back least. Where every row is to shrink at every step, use dense gradients.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.ops.cpu.scaling import scale_all_
from softmax_bench.ops.cpu.updates import (
    adagrad,
    adagrad_on_all,
    adam,
    merged,
    row_norm,
    scale_rows_,
    sgd,
)
from softmax_bench.ops.dispatch import on_cuda

Parameters = list[dict[str, Any]]
"""Groups with their learning rates, as ``torch.optim`` takes them."""

_EPSILON = {"adagrad": 1e-10, "adam": 1e-8}
_WEIGHT_DECAY = 0.01
"""Of AdamW, as in torch."""
_BETAS = (0.9, 0.999)


def row_gradient(parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
    """Distinct rows and values of a row-sparse gradient; a gradient that is a sum is added up.

    On a GPU rows that are not counted, which are zero, may follow: see ``ops.cuda.rows``.
    """
    grad = parameter.grad
    assert grad is not None
    grad = parameter.grad = merged(grad)
    return grad._indices()[0], grad._values()


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients together so that their joint 2-norm is at most ``max_norm``.

    As ``torch.nn.utils.clip_grad_norm_``, which refuses row-sparse gradients on a CPU. Cost is
    that of the stored values.

    Returns:
        The norm before clipping.
    """
    with_gradient = [p for p in parameters if p.grad is not None]
    dense = [p.grad for p in with_gradient if p.grad is not None and not p.grad.is_sparse]
    sparse = [row_gradient(p) for p in with_gradient if p.grad is not None and p.grad.is_sparse]
    if not with_gradient:
        return torch.tensor(0.0)
    norms = [*(torch._foreach_norm(dense) if dense else ()), *(row_norm(v, r) for r, v in sparse)]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if dense:
        scale_all_(factor, dense)
    for rows, values in sparse:
        scale_rows_(values, rows, factor)
    return norm


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
                    state = self.state[parameter]
                    self._begin(parameter, state)
                    if parameter.grad.is_sparse:
                        rows, values = row_gradient(parameter)
                        self._update(parameter, rows, values, state, group["lr"])
                    else:
                        self._update_all(parameter, parameter.grad, state, group["lr"])

    def _begin(self, parameter: Tensor, state: dict[str, Any]) -> None:
        """Make the state at the first step, and count the steps where the rule wants that."""

    def _update(
        self, parameter: Tensor, rows: Tensor, values: Tensor, state: dict[str, Any], lr: float
    ) -> None:
        raise NotImplementedError

    def _update_all(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], lr: float
    ) -> None:
        """The step of a dense gradient, where the rule has one here."""
        raise NotImplementedError


class RowSGD(_RowOptimizer):
    """Stochastic gradient descent on the rows that have a gradient."""

    def _update(
        self, parameter: Tensor, rows: Tensor, values: Tensor, state: dict[str, Any], lr: float
    ) -> None:
        sgd(parameter, rows, values, lr=lr)


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
        adagrad(parameter, state["sum"], rows, values, lr=lr, eps=_EPSILON["adagrad"])

    def _update_all(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], lr: float
    ) -> None:
        adagrad_on_all(parameter, state["sum"], gradient, lr=lr, eps=_EPSILON["adagrad"])


class RowAdam(_RowOptimizer):
    """Lazy Adam (Kingma & Ba 2015) on the rows that have a gradient.

    With ``weight_decay`` it is AdamW (Loshchilov & Hutter 2019), whose decay is decoupled from the
    running means: a row is first multiplied by ``1 - lr weight_decay``.
    """

    def __init__(self, parameters: Parameters, lr: float, *, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, lr)
        self._weight_decay = weight_decay

    def _begin(self, parameter: Tensor, state: dict[str, Any]) -> None:
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        if on_cuda(parameter):  # counted on the device, so that a CUDA graph counts too
            state["step"] = torch.as_tensor(
                state["step"], dtype=torch.float64, device=parameter.device
            )
        state["step"] += 1

    def _update(
        self, parameter: Tensor, rows: Tensor, values: Tensor, state: dict[str, Any], lr: float
    ) -> None:
        adam(
            parameter, state["mean"], state["square"], rows, values, step=state["step"], lr=lr,
            eps=_EPSILON["adam"], betas=_BETAS, weight_decay=self._weight_decay,
        )  # fmt: skip


_RULES: dict[str, tuple[Callable[..., torch.optim.Optimizer], Callable[..., _RowOptimizer]]] = {
    "adagrad": (torch.optim.Adagrad, RowAdagrad),
    "adam": (torch.optim.Adam, RowAdam),
    "adamw": (torch.optim.AdamW, RowAdam),
    "sgd": (torch.optim.SGD, RowSGD),
}


class PairedOptimizer:
    """One rule for dense and row-sparse parameters together."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts
        groups = [group for part in parts for group in part.param_groups]
        self._rates = [float(group["lr"]) for group in groups]

    def scale_rate(self, factor: float) -> None:
        """Learn from here on by ``factor`` times the rates at the start."""
        groups = [group for part in self.parts for group in part.param_groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = factor * rate

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
    weight_decay: float = _WEIGHT_DECAY,
    layer: Iterable[nn.Parameter] = (),
    layer_rate: float = 1.0,
) -> PairedOptimizer:
    """An optimiser by name: ``"sgd"``, ``"adagrad"``, ``"adam"`` or ``"adamw"``.

    Args:
        name: The rule.
        parameters: All parameters.
        row_sparse: Those of them whose gradients are row-sparse.
        lr: Learning rate.
        initial_accumulator_value: Where Adagrad's sums of squares start. From 0, the first
            gradient of a number moves it by the whole learning rate, however small it is.
        weight_decay: Of AdamW, as a share of the learning rate; other rules have none. Rows without
            a gradient do not decay.
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
    if name == "adamw":
        options["weight_decay"] = weight_decay
    parts: list[torch.optim.Optimizer] = []
    if dense := [group for (is_sparse, _), group in groups.items() if not is_sparse]:
        parts.append(_dense_part(name, dense, lr, options))
    if rows := [group for (is_sparse, _), group in groups.items() if is_sparse]:
        parts.append(_RULES[name][1](rows, lr, **options))
    return PairedOptimizer(parts)


def _dense_part(
    name: str, groups: list[dict[str, Any]], lr: float, options: dict[str, float]
) -> torch.optim.Optimizer:
    """The rule in one pass over the parameters, as far as there is one on their devices."""
    dense_rule, row_rule = _RULES[name]
    parameters = [parameter for group in groups for parameter in group["params"]]
    if name == "adagrad" and all(map(on_cuda, parameters)):
        return row_rule(groups, lr, **options)  # torch has a fused kernel for the CPU only
    devices = {parameter.device.type for parameter in parameters}
    fused = devices <= ({"cpu"} if name == "adagrad" else {"cpu", "cuda"})
    if name in ("adam", "adamw") and devices == {"cuda"}:
        return dense_rule(groups, lr=lr, fused=True, capturable=True, **options)
    return dense_rule(groups, lr=lr, fused=fused, **options)
