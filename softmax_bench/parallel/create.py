"""From the specification of a layer to the same layer divided over processes."""

from __future__ import annotations

from typing import Any

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import NCE, FullSoftmax, OutputLayer, SampledSoftmax, parse_spec
from softmax_bench.layers.base import layer_options
from softmax_bench.layers.options import Counts
from softmax_bench.parallel.full import ParallelFullSoftmax
from softmax_bench.parallel.layer import ParallelOutputLayer
from softmax_bench.parallel.nce import ParallelNCE
from softmax_bench.parallel.sampled import ParallelSampledSoftmax

_DIVIDED: dict[type[OutputLayer], type[ParallelOutputLayer]] = {
    FullSoftmax: ParallelFullSoftmax,
    SampledSoftmax: ParallelSampledSoftmax,
    NCE: ParallelNCE,
}


def create_parallel_layer(
    spec: str,
    in_features: int,
    num_classes: int,
    class_counts: Counts | None = None,
    **options: Any,
) -> ParallelOutputLayer:
    """As :func:`softmax_bench.create_layer`, with the classes divided over processes.

    Args:
        spec: ``"full"``, ``"sampled(num_samples=1024)"``, ``"nce"``.
        in_features: Size H of a hidden state.
        num_classes: Number V of classes.
        class_counts: (V,) how often each class occurs in the training data.
        **options: Further options, ``mesh`` and ``tokens`` among them.

    Raises:
        SoftmaxBenchError: The layer or one of its options has no divided form.
    """
    layer, own = parse_spec(spec)
    if layer not in _DIVIDED:
        known = ", ".join(one.name for one in _DIVIDED)
        raise SoftmaxBenchError(
            f"layer {layer.name!r} cannot be divided over processes: choose {known}"
        )
    divided = _DIVIDED[layer]
    missing = [option for option in own if option not in layer_options(divided)]
    if missing:
        raise SoftmaxBenchError(
            f"layer {layer.name!r} has no option {missing[0]!r} where it is divided over processes"
        )
    return divided(in_features, num_classes, **{"class_counts": class_counts, **options, **own})
