"""From a specification such as ``"sampled(num_samples=1024)"`` to a layer."""

from __future__ import annotations

import ast
import importlib
import logging
import pkgutil
import re
from functools import cache
from typing import Any

import softmax_bench.layers
from softmax_bench.errors import SoftmaxBenchError, nearest
from softmax_bench.layers.base import OutputLayer
from softmax_bench.layers.options import Counts, check_type, layer_options
from softmax_bench.layers.plugins import Origin, from_entry_points

_log = logging.getLogger(__name__)

_SPEC = re.compile(r"(?P<name>[\w.-]+(:\w+)?)\s*(?P<options>\(.*\))?", re.DOTALL)


@cache
def _origins() -> dict[str, list[Origin]]:
    """Origins by name: our own layers and those of installed packages, not imported yet.

    More than one origin for a name is a conflict, which :func:`_find` reports when the name is
    used: two packages that do not know each other must not make all other layers unusable.
    """
    found: dict[str, list[Origin]] = {}
    for name, origin in [*_own_layers(), *from_entry_points()]:
        found.setdefault(name, []).append(origin)
    return found


def _own_layers() -> list[tuple[str, Origin]]:
    """Every layer class defined in a module below this folder."""
    found = []
    package = softmax_bench.layers
    for module_info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(module_info.name)
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, OutputLayer)
                and value.__module__ == module.__name__
                and hasattr(value, "name")
            ):
                found.append((value.name, Origin(f"{module.__name__}:{value.__name__}")))
    return found


def _find(name: str) -> type[OutputLayer]:
    if ":" in name:
        return Origin(name).load()
    if name not in _origins():
        raise SoftmaxBenchError(f"unknown layer {name!r}{nearest(name, _origins())}")
    first, *others = _origins()[name]
    if others:
        raise SoftmaxBenchError(
            f"more than one layer is called {name!r}: {', '.join(map(str, [first, *others]))}; "
            f"name the one you mean, for example {first.location!r}"
        )
    layer = first.load()
    if layer.name != name:
        raise SoftmaxBenchError(
            f"{first} is offered as {name!r}, but its class is called {layer.name!r}: "
            "the entry point and the class attribute must agree"
        )
    return layer


def layer_names() -> list[str]:
    """Names of all output layers, including those of installed packages.

    A layer that cannot be used is left out, with a warning in the log.
    """
    usable = []
    for name in sorted(_origins()):
        try:
            _find(name)
        except SoftmaxBenchError as error:
            _log.warning("%s", error)
        else:
            usable.append(name)
    return usable


def layer_package(name: str) -> str:
    """Name and version of the installed package that offers a layer, empty for our own."""
    return _origins()[name][0].distribution


def parse_spec(spec: str) -> tuple[type[OutputLayer], dict[str, Any]]:
    """The class and the options that a specification names.

    Args:
        spec: A layer's name, or ``package.module:Class`` for a layer without one, optionally
            with literal keyword arguments in parentheses: ``"full"``,
            ``"nce(num_samples=25, log_z='learned')"``, ``"my_layers:Mine(rank=3)"``.

    Raises:
        SoftmaxBenchError: The text cannot be parsed, no layer or option has that name (the message
            suggests the nearest one), or a value is of the wrong type.
    """
    match = _SPEC.fullmatch(spec.strip())
    options = None if match is None else _read_options(match["options"] or "()")
    if match is None or options is None:
        raise SoftmaxBenchError(
            f"cannot read layer {spec!r}: write a name, or a name with options, such as "
            "'nce(num_samples=25)', or a class, such as 'my_package.my_module:MyLayer'"
        )
    name = match["name"]
    layer = _find(name)
    allowed = layer_options(layer)
    for option, value in options.items():
        if option not in allowed:
            raise SoftmaxBenchError(
                f"layer {name!r} has no option {option!r}{nearest(option, allowed)}"
            )
        check_type(layer, option, value)
    return layer, options


def _read_options(text: str) -> dict[str, Any] | None:
    """Literal keyword arguments in parentheses; None if the text is something else."""
    try:
        call = ast.parse(f"f{text}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
            return None
        options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords if k.arg}
    except (SyntaxError, ValueError):
        return None
    return options if len(options) == len(call.keywords) else None


_QUOTED_OR_ONE = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|.""", re.DOTALL)


def split_specs(text: str) -> list[str]:
    """Layers in a comma-separated list; ``"all"`` stands for every layer.

    Commas inside parentheses belong to a layer's options.
    """
    if text.strip() == "all":
        return layer_names()
    specs, depth = [""], 0
    for part in _QUOTED_OR_ONE.findall(text):
        depth += (part == "(") - (part == ")")
        if part == "," and depth == 0:
            specs.append("")
        else:
            specs[-1] += part
    return [spec.strip() for spec in specs if spec.strip()]


def create_layer(
    spec: str,
    in_features: int,
    num_classes: int,
    class_counts: Counts | None = None,
    **options: Any,
) -> OutputLayer:
    """Build an output layer from its specification.

    Args:
        spec: For example ``"full"``, ``"sampled(num_samples=1024)"``, ``"my_layers:Mine"``.
        in_features: Size H of a hidden state.
        num_classes: Number V of classes.
        class_counts: (V,) how often each class occurs in the training data.
        **options: Further options; the specification takes precedence.

    Raises:
        SoftmaxBenchError: A layer or option is unknown, or a value is invalid.
    """
    layer, own = parse_spec(spec)
    return layer(in_features, num_classes, **{"class_counts": class_counts, **options, **own})
