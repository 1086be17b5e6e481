"""Optimisers whose cost follows that of the gradient: rows without a gradient are not touched.

SGD without momentum and Adagrad leave a row without a gradient unchanged, so their row-sparse forms
give exactly the same parameters as the dense ones. Adam does not: its dense form moves every row at
every step by its running mean. The row-sparse form is *lazy* Adam, as in
``torch.optim.SparseAdam``, which treats missing gradients of a row as missing steps of its
averages. AdamW's decay is equally lazy: a row shrinks only in the steps that touch it, so rare
classes, which need it least, are decayed least. If every row should shrink at every step, use dense
gradients.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from softmax_bench.errors import SoftmaxBenchError, nearest
from softmax_bench.ops.cpu.scaling import scale_all_
from softmax_bench.ops.cpu.updates import (
    adagrad,
    adam,
    merged,
    row_norm,
    scale_rows_,
    sgd,
)
from softmax_bench.ops.dispatch import on_cuda

_EPSILON = {"adagrad": 1e-10, "adam": 1e-8}
_WEIGHT_DECAY = 0.01
"""AdamW's default, as in torch."""
_BETAS = (0.9, 0.999)


def row_gradient(parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
    """Distinct rows and values of a row-sparse gradient; an uncoalesced gradient is summed.

    On a GPU, unused rows, which are zero, may follow: see ``ops.cuda.rows``.
    """
    grad = parameter.grad
    assert grad is not None
    grad = parameter.grad = merged(grad)
    return grad._indices()[0], grad._values()


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients together so that their joint 2-norm is at most ``max_norm``.

    Like ``torch.nn.utils.clip_grad_norm_``, which rejects row-sparse gradients on a CPU. The cost
    is that of the stored values.

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


State = dict[str, Any]
"""The state that an optimiser keeps for a parameter."""


class Optimizer(ABC):
    """An optimiser for dense and row-sparse gradients, whichever a parameter has in a step.

    It is not a ``torch.optim`` optimiser, because those import torch's compiler, which takes a
    second in every process.

    Args:
        rates: The parameters, each with its learning rate.
    """

    def __init__(self, rates: Mapping[nn.Parameter, float]) -> None:
        self._rates = rates
        self._rate_factor = 1.0
        self._states: dict[nn.Parameter, State] = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameters, where ``torch.amp.GradScaler`` looks for them."""
        return [{"params": list(self._rates)}]

    def scale_rate(self, factor: float) -> None:
        """Set the learning rates to ``factor`` times those at the start."""
        self._rate_factor = factor

    @torch.no_grad()
    def step(self) -> None:
        """Apply the gradients."""
        for parameter, rate in self._rates.items():
            if parameter.grad is None:
                continue
            sparse = parameter.grad.is_sparse
            rows, values = row_gradient(parameter) if sparse else (None, parameter.grad)
            state = self._states.setdefault(parameter, {})
            self._update(parameter, rows, values, state, self._rate_factor * rate)

    @abstractmethod
    def _update(
        self, parameter: Tensor, rows: Tensor | None, values: Tensor, state: State, lr: float
    ) -> None:
        """Apply a gradient of these rows, or of all; ``state`` is empty at the first step."""

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self._rates:
            parameter.grad = None

    def state_dict(self) -> list[State]:
        """The state of each parameter."""
        return [self._states.get(parameter, {}) for parameter in self._rates]

    def load_state_dict(self, states: Sequence[State]) -> None:
        """Continue from the state of an optimiser of the same parameters."""
        for parameter, state in zip(self._rates, states, strict=True):
            self._states[parameter] = {
                name: value.to(parameter.device) if isinstance(value, Tensor) else value
                for name, value in state.items()
            }

    def state_tensors(self) -> Iterator[Tensor]:
        """All tensors that are kept between steps, without counters."""
        for state in self._states.values():
            yield from (x for x in state.values() if isinstance(x, Tensor) and x.dim() > 0)


class _SGD(Optimizer):
    """Stochastic gradient descent."""

    def _update(
        self, parameter: Tensor, rows: Tensor | None, values: Tensor, state: State, lr: float
    ) -> None:
        sgd(parameter, rows, values, lr=lr)


class _Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011)."""

    def __init__(
        self, rates: Mapping[nn.Parameter, float], initial_accumulator_value: float = 0.0
    ) -> None:
        super().__init__(rates)
        self._start = initial_accumulator_value

    def _update(
        self, parameter: Tensor, rows: Tensor | None, values: Tensor, state: State, lr: float
    ) -> None:
        if not state:
            state["sum"] = torch.full_like(parameter, self._start)
        adagrad(parameter, state["sum"], rows, values, lr=lr, eps=_EPSILON["adagrad"])


class _Adam(Optimizer):
    """Adam (Kingma & Ba 2015), which is lazy for row-sparse gradients.

    With ``weight_decay`` it is AdamW (Loshchilov & Hutter 2019), whose decay is decoupled from the
    running means: a row is first multiplied by ``1 - lr weight_decay``.
    """

    def __init__(self, rates: Mapping[nn.Parameter, float], weight_decay: float = 0.0) -> None:
        super().__init__(rates)
        self._weight_decay = weight_decay

    def _update(
        self, parameter: Tensor, rows: Tensor | None, values: Tensor, state: State, lr: float
    ) -> None:
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        if on_cuda(parameter):  # counted on the device, so that it also advances in a CUDA graph
            state["step"] = torch.as_tensor(
                state["step"], dtype=torch.float64, device=parameter.device
            )
        state["step"] += 1
        adam(
            parameter, state["mean"], state["square"], rows, values, step=state["step"], lr=lr,
            eps=_EPSILON["adam"], betas=_BETAS, weight_decay=self._weight_decay,
        )  # fmt: skip


_RULES: dict[str, Callable[..., Optimizer]] = {
    "adagrad": _Adagrad, "adam": _Adam, "adamw": _Adam, "sgd": _SGD,
}  # fmt: skip


def check_optimizer(name: str, initial_accumulator_value: float = 0.0) -> None:
    """Raise a SoftmaxBenchError if there is no such optimiser, or its options are invalid."""
    if name not in _RULES:
        raise SoftmaxBenchError(f"unknown optimizer {name!r}{nearest(name, _RULES)}")
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
    lr: float,
    *,
    initial_accumulator_value: float = 0.0,
    weight_decay: float = _WEIGHT_DECAY,
    layer: Iterable[nn.Parameter] = (),
    layer_rate: float = 1.0,
) -> Optimizer:
    """Create an optimiser by name: ``"sgd"``, ``"adagrad"``, ``"adam"`` or ``"adamw"``.

    Args:
        name: Name of the optimiser.
        parameters: Parameters, whose gradients may be dense or row-sparse.
        lr: Learning rate.
        initial_accumulator_value: Start of Adagrad's sums of squares. At 0, the first gradient of a
            number moves it by the full learning rate, however small the gradient is.
        weight_decay: AdamW's decay relative to the learning rate; other optimisers have none. Rows
            without a gradient do not decay.
        layer: The parameters whose rate is ``layer_rate * lr``.
        layer_rate: Relative learning rate of these parameters.

    Raises:
        SoftmaxBenchError: There is no such optimiser, a rate is not positive, or the optimiser has
            no sums of squares to start from.
    """
    check_optimizer(name, initial_accumulator_value)
    for rate in (lr, layer_rate):
        if not rate > 0:
            raise SoftmaxBenchError(f"the learning rate must be positive, not {rate}")
    of_layer = {id(p) for p in layer}
    rates = {p: layer_rate * lr if id(p) in of_layer else lr for p in parameters}
    options: dict[str, float] = {}
    if name == "adagrad":
        options["initial_accumulator_value"] = initial_accumulator_value
    if name == "adamw":
        options["weight_decay"] = weight_decay
    return _RULES[name](rates, **options)
