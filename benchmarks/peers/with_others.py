"""PaddlePaddle's hierarchical sigmoid, hierarchicalsoftmax, Pytorch-NCE, cut-cross-entropy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from benchmarks.peers.race import Inputs, Step, backward, competes, leaves
from softmax_bench.classes.huffman import huffman_tree
from softmax_bench.measure import zipf_counts


@competes("hierarchical softmax", "PaddlePaddle: hsigmoid_loss", needs="paddle")
def hsigmoid(inputs: Inputs) -> Step:
    """The same Huffman tree as ours, as padded paths.

    Its gradient is dense, because ``is_sparse=True`` ends in a segmentation fault (3.3.1).
    """
    import paddle

    paddle.set_device("cpu")
    paths = huffman_tree(zipf_counts(inputs.vocab_size)).paths()
    lengths = np.diff(paths.starts)
    target = inputs.target.numpy()
    deepest = int(lengths[target].max())
    nodes = np.full((inputs.num_tokens, deepest), -1)
    codes = np.full((inputs.num_tokens, deepest), -1)
    for row, word in enumerate(target):
        path = slice(paths.starts[word], paths.starts[word + 1])
        nodes[row, : lengths[word]] = paths.nodes[path]
        codes[row, : lengths[word]] = paths.codes[path]
    hidden = paddle.to_tensor(inputs.hidden.numpy(), stop_gradient=False)
    weight = paddle.to_tensor(inputs.weight[:-1].numpy(), stop_gradient=False)
    bias = paddle.to_tensor(inputs.bias[:-1, None].numpy(), stop_gradient=False)
    table, code = paddle.to_tensor(nodes), paddle.to_tensor(codes)
    label = paddle.to_tensor(target[:, None])

    def step() -> None:
        for operand in (hidden, weight, bias):
            operand.clear_gradient()
        loss = paddle.nn.functional.hsigmoid_loss(
            hidden, label, inputs.vocab_size, weight, bias, table, code
        )
        loss.mean().backward()

    return step


# It loops over tokens and levels in Python.
@competes("two-level softmax", "hierarchicalsoftmax", needs="hierarchicalsoftmax", max_flops=1e11)
def hierarchicalsoftmax(inputs: Inputs) -> Step:
    """A tree of two levels: sqrt(V) inner nodes with sqrt(V) leaves each."""
    from hierarchicalsoftmax import (
        HierarchicalSoftmaxLinear,
        HierarchicalSoftmaxLoss,
        SoftmaxNode,
    )

    root = SoftmaxNode("root")
    fan_out = math.isqrt(inputs.vocab_size - 1) + 1
    clusters = [SoftmaxNode(f"cluster {i}", parent=root) for i in range(fan_out)]
    words = [SoftmaxNode(str(w), parent=clusters[w // fan_out]) for w in range(inputs.vocab_size)]
    root.set_indexes()
    layer = HierarchicalSoftmaxLinear(in_features=inputs.hidden_size, root=root)
    loss = HierarchicalSoftmaxLoss(root)
    target = torch.tensor(root.get_node_ids(words))[inputs.target]
    hidden = inputs.hidden.clone().requires_grad_()
    return lambda: backward(loss(layer(hidden), target), hidden, *layer.parameters())


@competes("full softmax", "cut-cross-entropy, torch_compile (no bias)", needs="cut_cross_entropy")
def cut_cross_entropy(inputs: Inputs) -> Step:
    """Its CPU implementation: the usual two lines without a bias, fused by inductor."""
    from cut_cross_entropy import linear_cross_entropy

    hidden, weight, _ = leaves(inputs)

    def step() -> None:
        loss = linear_cross_entropy(hidden, weight, inputs.target, impl="torch_compile")
        backward(loss, hidden, weight)

    return step


def _pytorch_nce(inputs: Inputs, *, per_word: bool) -> Step:
    from nce import IndexLinear

    layer: Any = IndexLinear(
        inputs.hidden_size,
        inputs.vocab_size,
        noise=torch.from_numpy(zipf_counts(inputs.vocab_size)).double(),
        noise_ratio=inputs.num_samples,
        per_word=per_word,
        loss_type="nce",
    ).float()
    hidden = inputs.hidden.clone().requires_grad_()

    def step() -> None:
        loss = layer(inputs.target.unsqueeze(1), hidden.unsqueeze(1)).mean()
        backward(loss, hidden, *layer.parameters())

    return step


# Its table is built by a loop over the classes, which takes minutes for larger vocabularies.
@competes("NCE, shared noise", "Pytorch-NCE", needs="nce", max_flops=2e11)
def pytorch_nce(inputs: Inputs) -> Step:
    """Noise shared by the whole batch."""
    return _pytorch_nce(inputs, per_word=False)


@competes("NCE, noise per token", "Pytorch-NCE", needs="nce", max_flops=2e11)
def pytorch_nce_per_word(inputs: Inputs) -> Step:
    """Separate noise for every token."""
    return _pytorch_nce(inputs, per_word=True)
