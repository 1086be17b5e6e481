"""softmax-bench: which softmax approximation to use for a large output layer, and at what price.

Names are imported on first use, so that ``softmax-bench --help`` and reports, which do not need
torch, start without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softmax_bench.errors import SoftmaxBenchError
    from softmax_bench.layers import (
        NCE,
        Cost,
        FullSoftmax,
        HierarchicalSoftmax,
        OutputLayer,
        SampledSoftmax,
        create_layer,
        layer_names,
    )
    from softmax_bench.records.frames import Results, load_results

__version__ = "0.1.0"

_HOME = {
    "SoftmaxBenchError": "errors",
    "NCE": "layers",
    "Cost": "layers",
    "FullSoftmax": "layers",
    "HierarchicalSoftmax": "layers",
    "OutputLayer": "layers",
    "SampledSoftmax": "layers",
    "create_layer": "layers",
    "layer_names": "layers",
    "Results": "records.frames",
    "load_results": "records.frames",
}

__all__ = [
    "NCE",
    "Cost",
    "FullSoftmax",
    "HierarchicalSoftmax",
    "OutputLayer",
    "Results",
    "SampledSoftmax",
    "SoftmaxBenchError",
    "__version__",
    "create_layer",
    "layer_names",
    "load_results",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
