"""Check that an output layer, from this package or another, keeps the contract.

In a test, ``check_output_layer(MyLayer)`` suffices. For a layer with its own options, write

``check_output_layer(lambda width, classes, **common: MyLayer(width, classes, rank=3, **common))``.
"""

from __future__ import annotations

import torch

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.base import OutputLayer
from softmax_bench.layers.plugins import check_description
from softmax_bench.testing.distribution import (
    check_distribution,
    check_empty,
    check_search,
    check_state,
)
from softmax_bench.testing.layers import Factory, random_hidden
from softmax_bench.testing.training import (
    check_evaluation,
    check_likelihood,
    check_loss,
    check_memory,
    check_reductions,
    check_refusals,
)

__all__ = ["Factory", "check_output_layer"]


def check_output_layer(
    factory: Factory,
    *,
    sizes: tuple[int, ...] = (1, 2, 3, 17, 300),
    every_gradient: bool = True,
) -> None:
    """Check that a layer keeps the whole contract, at each number of classes in ``sizes``.

    The checks run in float64, on unordered counts with zeros and ties. The layer describes itself.
    ``log_prob`` sums to 1, and ``target_log_prob``, ``topk`` and ``sample`` agree with it. The loss
    is finite, ignored targets give neither loss nor gradient, and the three reductions agree. An
    ``exact`` layer has the loss and gradients of ``-log_prob`` under autograd, and after ``eval()``
    every layer has that loss. Gradients are row-sparse and coalesced where
    ``row_sparse_parameters`` says so. ``flops`` and ``rows_touched`` return numbers. A copy, a
    loaded state dict and ``float()`` give the same distribution. Bad input raises a ``ValueError``
    (``SoftmaxBenchError`` is one) before anything changes. An empty batch works.

    Args:
        factory: Creates the layer.
        sizes: Numbers of classes.
        every_gradient: Whether every parameter must get a gradient in every step, as data-parallel
            training requires.

    Raises:
        AssertionError: The layer breaks the contract; the message says where.
    """
    for num_classes in sizes:
        counts = torch.randint(0, 50, (num_classes,)).double()  # unordered, with zeros and ties
        layer = factory(6, num_classes, class_counts=counts, dtype=torch.float64)
        _check_description(layer)
        check_distribution(layer)
        check_search(layer)
        check_loss(layer, every_gradient=every_gradient)
        check_likelihood(layer)
        check_evaluation(layer)
        check_reductions(layer)
        check_state(factory, layer, counts)
        check_memory(factory, layer, counts)
        check_refusals(layer)
    check_empty(factory)


def _check_description(layer: OutputLayer) -> None:
    try:
        check_description(type(layer))
    except SoftmaxBenchError as error:
        raise AssertionError(str(error)) from error
    claim = layer.unnormalized_target_log_prob(
        random_hidden(layer, 1), torch.zeros(1, dtype=torch.int64)
    )
    by_training = layer.normalised == "by training"
    assert (claim is not None) == by_training, (
        "layers normalised by training, and only they, must have unnormalized_target_log_prob"
    )
