"""From a specification such as ``"sampled(num_samples=1024)"`` to a layer."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import Any

import softmax_bench.layers
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.base import CommonOptions, Counts, OutputLayer


@cache
def _registry() -> dict[str, type[OutputLayer]]:
    """Every layer class defined in a module of this folder, by its ``name``."""
    found = {}
    for module_info in pkgutil.iter_modules(softmax_bench.layers.__path__):
        module = importlib.import_module(f"{softmax_bench.layers.__name__}.{module_info.name}")
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, OutputLayer)
                and value.__module__ == module.__name__
                and hasattr(value, "name")
            ):
                found[value.name] = value
    return found


def layer_names() -> list[str]:
    """Names of all output layers."""
    return sorted(_registry())


def parse_spec(spec: str) -> tuple[type[OutputLayer], dict[str, Any]]:
    """The class and the options that a specification names.

    Args:
        spec: A layer's name, alone or with literal keyword arguments in parentheses:
            ``"full"``, ``"nce(num_samples=25, log_z='learned')"``.

    Raises:
        SoftmaxBenchError: The text is no such call, or no layer or option has that name; the
            nearest right one is proposed.
    """
    try:
        call = ast.parse(spec.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            name, options = call.id, {}
        elif isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            name = call.func.id
            options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords if k.arg}
            if len(options) != len(call.keywords):
                raise ValueError
        else:
            raise ValueError
    except (SyntaxError, ValueError):
        raise SoftmaxBenchError(
            f"cannot read layer {spec!r}: write a name, or a name with options, such as "
            "'nce(num_samples=25)'"
        ) from None
    registry = _registry()
    if name not in registry:
        raise SoftmaxBenchError(f"unknown layer {name!r}{_nearest(name, registry)}")
    layer = registry[name]
    allowed = layer_options(layer)
    for option in options:
        if option not in allowed:
            raise SoftmaxBenchError(
                f"layer {name!r} has no option {option!r}{_nearest(option, allowed)}"
            )
    return layer, options


def layer_options(layer: type[OutputLayer]) -> list[str]:
    """Names of the options that a specification of this layer may set."""
    own = [
        name
        for name, parameter in inspect.signature(layer).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    return [*own, *(name for name in CommonOptions.__annotations__ if name not in own)]


def create_layer(
    spec: str,
    in_features: int,
    num_classes: int,
    class_counts: Counts | None = None,
    **options: Any,
) -> OutputLayer:
    """Build an output layer from its specification.

    Args:
        spec: For example ``"full"``, ``"hierarchical"``, ``"sampled(num_samples=1024)"``.
        in_features: Size H of a hidden state.
        num_classes: Number V of classes.
        class_counts: (V,) how often each class occurs in the training data.
        **options: Further options; where the specification sets the same, it wins.

    Raises:
        SoftmaxBenchError: An unknown layer or option, or a value that does not fit.
    """
    layer, own = parse_spec(spec)
    return layer(in_features, num_classes, **{"class_counts": class_counts, **options, **own})


def _nearest(wrong: str, right: Iterable[str]) -> str:
    known = sorted(right)
    near = difflib.get_close_matches(wrong, known, n=1)
    hint = f": did you mean {near[0]!r}?" if near else "."
    return f"{hint} Known: {', '.join(known)}"
