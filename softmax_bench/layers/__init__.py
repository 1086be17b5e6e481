"""The output layers, one per file, and the registry that finds them.

A new layer is a new file in one of these folders, with one class derived from
:class:`~softmax_bench.layers.base.OutputLayer` that sets ``name``; or such a class in any installed
package with an entry point (see :mod:`softmax_bench.layers.plugins`). Tests, benchmarks, the
command line and reports find it by themselves.
"""

from softmax_bench.layers.base import OutputLayer
from softmax_bench.layers.contrastive.nce import NCE
from softmax_bench.layers.cost import Cost
from softmax_bench.layers.exact.full import FullSoftmax
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.options import CommonOptions, Knob
from softmax_bench.layers.registry import (
    create_layer,
    layer_names,
    parse_spec,
    split_specs,
)
from softmax_bench.layers.sampled.sampled import SampledSoftmax
from softmax_bench.layers.trees.hierarchical import HierarchicalSoftmax

__all__ = [
    "NCE",
    "CommonOptions",
    "Cost",
    "FullSoftmax",
    "HierarchicalSoftmax",
    "Knob",
    "LinearOutputLayer",
    "OutputLayer",
    "SampledSoftmax",
    "create_layer",
    "layer_names",
    "parse_spec",
    "split_specs",
]
