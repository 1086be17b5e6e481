"""Where a layer's class is defined: in this package, or in somebody else's.

Another package offers a layer under a name by an entry point in the group :data:`GROUP`::

    [project.entry-points."softmax_bench.layers"]
    bottleneck = "bottleneck_softmax:BottleneckSoftmax"
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import get_args

from softmax_bench.errors import SoftmaxBenchError, nearest
from softmax_bench.layers.base import OutputLayer
from softmax_bench.layers.options import Normalised

GROUP = "softmax_bench.layers"


@dataclass(frozen=True)
class Origin:
    """The location of a class that is not imported before it is needed."""

    location: str
    """``package.module:Class``."""
    distribution: str = ""
    """Name and version of the installed package that offers it, if any."""

    def __str__(self) -> str:
        return f"{self.location} ({self.distribution})" if self.distribution else self.location

    def load(self) -> type[OutputLayer]:
        """Import the class.

        Raises:
            SoftmaxBenchError: It cannot be imported, or is not an output layer.
        """
        module_name, _, class_name = self.location.partition(":")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # anything that a foreign module may raise
            raise SoftmaxBenchError(
                f"cannot import layer {self}: {type(error).__name__}: {error}"
            ) from error
        if not hasattr(module, class_name):
            layers = [
                name
                for name, value in vars(module).items()
                if isinstance(value, type) and issubclass(value, OutputLayer)
            ]
            raise SoftmaxBenchError(
                f"cannot import layer {self}: the module has no class {class_name!r}"
                f"{nearest(class_name, layers)}"
            )
        layer = getattr(module, class_name)
        if not (isinstance(layer, type) and issubclass(layer, OutputLayer)):
            raise SoftmaxBenchError(f"{self} is not a layer: a layer is a subclass of OutputLayer")
        if inspect.isabstract(layer):
            missing = ", ".join(sorted(layer.__abstractmethods__))
            raise SoftmaxBenchError(f"{self} is not a complete layer: it does not define {missing}")
        check_description(layer)
        return layer


_DESCRIPTION = {
    "name": str,
    "scores": str,
    "source": str,
    "good_for": str,
    "step_flops": str,
    "exact": bool,
    "needs_sorted_ids": bool,
    "traceable": bool,
}


def check_description(layer: type[OutputLayer]) -> None:
    """Check the class attributes of a layer.

    Raises:
        SoftmaxBenchError: Some are missing or wrong; the message says what each should be.
    """
    wrong = [
        f"{attribute} must be a {kind.__name__}, not {getattr(layer, attribute, 'missing')!r}"
        for attribute, kind in _DESCRIPTION.items()
        if not isinstance(getattr(layer, attribute, None), kind)
    ]
    if layer.normalised not in get_args(Normalised):
        ways = ", ".join(map(repr, get_args(Normalised)))
        wrong.append(f"normalised must be one of {ways}, not {layer.normalised!r}")
    options = inspect.signature(layer).parameters
    wrong += [f"knobs names {knob!r}, not an option" for knob in layer.knobs if knob not in options]
    if wrong:
        place = f"{layer.__module__}:{layer.__qualname__}"
        raise SoftmaxBenchError(f"class attributes of the layer {place}: {'; '.join(wrong)}")


def from_entry_points() -> Iterator[tuple[str, Origin]]:
    """Names and origins of the layers that installed packages offer."""
    for point in entry_points(group=GROUP):
        package = point.dist
        distribution = "" if package is None else f"{package.name} {package.version}"
        yield point.name, Origin(f"{point.module}:{point.attr}", distribution)
