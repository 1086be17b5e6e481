"""Creates sharded layers from a layer's specification."""

from __future__ import annotations

from typing import Any

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import NCE, FullSoftmax, OutputLayer, SampledSoftmax, parse_spec
from softmax_bench.layers.options import Counts, layer_options
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
    """Like :func:`softmax_bench.create_layer`, with the classes sharded over processes.

    Args:
        spec: ``"full"``, ``"sampled(num_samples=1024)"``, ``"nce"``.
        in_features: Size H of a hidden state.
        num_classes: Number V of classes.
        class_counts: (V,) how often each class occurs in the training data.
        **options: Further options, including ``mesh`` and ``tokens``.

    Raises:
        SoftmaxBenchError: The layer or one of its options has no sharded form.
    """
    layer, spec_options = parse_spec(spec)
    if layer not in _DIVIDED:
        names = ", ".join(one.name for one in _DIVIDED)
        raise SoftmaxBenchError(
            f"layer {layer.name!r} cannot be sharded over processes: choose {names}"
        )
    divided = _DIVIDED[layer]
    missing = [option for option in spec_options if option not in layer_options(divided)]
    if missing:
        raise SoftmaxBenchError(
            f"layer {layer.name!r} has no option {missing[0]!r} when it is sharded over processes"
        )
    return divided(
        in_features, num_classes, **{"class_counts": class_counts, **options, **spec_options}
    )
