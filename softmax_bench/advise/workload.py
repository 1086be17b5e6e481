"""What a training step of an output layer does, as the layer describes it, without running it."""

from __future__ import annotations

import msgspec

from softmax_bench.layers import OutputLayer, create_layer
from softmax_bench.layers.options import Counts
from softmax_bench.measure.memory import stored_bytes


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """The step of one layer at one size."""

    layer: str
    vocab_size: int
    hidden_size: int
    num_tokens: int
    flops: float
    bytes: float
    rows_touched: int
    parameter_bytes: int
    table_bytes: int
    """Bytes that the layer holds besides its parameters, such as noise distributions and trees."""
    gradient_bytes: float
    """Mean gradient bytes of the parameters after a step, over targets and draws."""
    row_sparse: bool
    """Whether any parameter has row-sparse gradients."""

    @property
    def size(self) -> tuple[int, int, int]:
        """V, H and N."""
        return self.vocab_size, self.hidden_size, self.num_tokens


def workload(
    spec: str,
    vocab_size: int,
    hidden_size: int,
    num_tokens: int,
    counts: Counts | None,
) -> Workload:
    """The step of a layer that is created without allocating its parameters.

    Raises:
        SoftmaxBenchError: There is no such layer, or a size or the counts are invalid.
    """
    layer = create_layer(spec, hidden_size, vocab_size, counts, device="meta", sparse=True)
    return of_layer(spec, layer, num_tokens)


def of_layer(spec: str, layer: OutputLayer, num_tokens: int) -> Workload:
    """The step of an existing layer."""
    cost = layer.cost(num_tokens)
    return Workload(
        layer=spec,
        vocab_size=layer.num_classes,
        hidden_size=layer.in_features,
        num_tokens=num_tokens,
        flops=cost.flops,
        bytes=cost.bytes,
        rows_touched=cost.rows_touched,
        parameter_bytes=sum(map(stored_bytes, layer.parameters())),
        table_bytes=sum(map(stored_bytes, layer.buffers())),
        gradient_bytes=cost.gradient_bytes,
        row_sparse=any(True for _ in layer.row_sparse_parameters()),
    )
