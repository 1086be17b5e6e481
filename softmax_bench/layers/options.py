"""Options that the constructors of all output layers take."""

from __future__ import annotations

import inspect
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_type_hints

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from softmax_bench.classes.counts import check_counts
from softmax_bench.errors import SoftmaxBenchError

if TYPE_CHECKING:
    from softmax_bench.layers.base import OutputLayer

Counts = npt.ArrayLike | Tensor
Reduction = Literal["mean", "sum", "none"]
Normalised = Literal["by construction", "by training", "no"]


class CommonOptions(TypedDict, total=False):
    """Constructor arguments of every layer, besides its sizes and its own options.

    * ``class_counts``: (V,) how often each class occurs in the training data. Ids need not be
      sorted by frequency. Without counts, all classes are assumed to be equally frequent, but
      log-uniform noise (the default of sampled softmax) takes ids as sorted, frequent ones first.
    * ``bias``: whether each class has an offset (default true).
    * ``ignore_index``: a target with this value gives no loss and no gradient (default -100).
    * ``reduction``: ``"mean"`` over the targets that are not ignored (default), ``"sum"``, or
      ``"none"`` for one loss per target, which costs more if the gradient is otherwise computed in
      the forward pass.
    * ``sparse``: whether the gradients of parameters hold only the rows that the step touches, as
      in ``nn.Embedding`` (default false). The cost of a step is then independent of V, but its
      optimiser and its clipping must support such gradients:
      :func:`~softmax_bench.lm.make_optimizer` does, most others do not. A layer whose every step
      touches all rows has dense gradients in any case.
    * ``device``, ``dtype``: those of the parameters.
    """

    class_counts: Counts | None
    bias: bool
    ignore_index: int
    reduction: Reduction
    sparse: bool
    device: torch.device | str | None
    dtype: torch.dtype | None


@dataclass(frozen=True)
class Knob:
    """The range in which to tune an option that changes what a layer learns, not what it costs."""

    low: float
    high: float
    log: bool = False
    """Whether to search on a logarithmic scale."""
    needs: tuple[str, object] | None = None
    """Another option and the value of it that gives this one a meaning."""


def as_counts(counts: Counts, num_classes: int) -> npt.NDArray[np.float64]:
    """Convert class counts from a tensor or anything that numpy reads, and check them."""
    array = counts.detach().cpu().numpy() if isinstance(counts, Tensor) else counts
    return check_counts(array, num_classes)


def layer_options(layer: type[OutputLayer]) -> list[str]:
    """Names of the options that a specification of this layer may set."""
    own = [
        name
        for name, parameter in inspect.signature(layer).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    return [*own, *(name for name in layer.options_type.__annotations__ if name not in own)]


@cache
def _option_types(layer: type[OutputLayer]) -> dict[str, Any]:
    return get_type_hints(layer.options_type) | get_type_hints(layer.__init__)


def check_type(layer: type[OutputLayer], option: str, value: object) -> None:
    """Check the type of an option's value in a specification.

    Raises:
        SoftmaxBenchError: It is of another type than the layer's annotation says.
    """
    with suppress(TypeError, NameError):  # annotations that msgspec or Python cannot read
        try:
            msgspec.convert(value, _option_types(layer).get(option, Any))
        except msgspec.ValidationError as error:
            # msgspec names these types as JSON does
            problem = str(error).replace("array", "tuple").replace("null", "None")
            raise SoftmaxBenchError(
                f"layer {layer.name!r}, option {option!r}: {problem}"
            ) from error
