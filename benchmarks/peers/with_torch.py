"""Common implementations in plain torch, and torch's own losses."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.peers.race import Inputs, Step, backward, competes, cutoffs, leaves
from softmax_bench.classes.huffman import huffman_tree
from softmax_bench.classes.noise import make_noise
from softmax_bench.measure import zipf_counts


@competes("full softmax", "torch: cross_entropy(linear(h))")
def eager(inputs: Inputs) -> Step:
    """The usual two lines."""
    hidden, weight, bias = leaves(inputs)
    return lambda: backward(
        F.cross_entropy(F.linear(hidden, weight, bias), inputs.target), hidden, weight, bias
    )


def _linear_cross_entropy(inputs: Inputs, chunk: int | None) -> Step:
    hidden, weight, bias = leaves(inputs)
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=chunk)
    return lambda: backward(
        F.linear_cross_entropy(hidden, weight, inputs.target, linear_bias=bias, options=options),
        hidden,
        weight,
        bias,
    )


@competes("full softmax", "torch: F.linear_cross_entropy, automatic chunks", max_flops=1e11)
def linear_cross_entropy(inputs: Inputs) -> Step:
    """With the chunk size that torch chooses."""
    return _linear_cross_entropy(inputs, None)


@competes("full softmax", "torch: F.linear_cross_entropy, chunks of 256")
def linear_cross_entropy_256(inputs: Inputs) -> Step:
    """With a chunk size that suits a CPU."""
    return _linear_cross_entropy(inputs, min(256, inputs.num_tokens))


@competes("hierarchical softmax", "torch: Embedding(sparse=True), einsum on padded paths")
def padded_paths(inputs: Inputs) -> Step:
    """Paths as a padded table, with nodes gathered for every token and one product per pair."""
    paths = huffman_tree(zipf_counts(inputs.vocab_size)).paths()
    lengths = torch.from_numpy(paths.starts).diff()
    deepest = int(lengths.max())
    table = torch.zeros(inputs.vocab_size, deepest, dtype=torch.int64)
    sign = torch.zeros(inputs.vocab_size, deepest)
    inside = torch.arange(deepest) < lengths.unsqueeze(1)
    table[inside] = torch.from_numpy(paths.nodes).long()
    sign[inside] = 1.0 - 2.0 * torch.from_numpy(paths.codes)
    nodes = nn.Embedding(inputs.vocab_size, inputs.hidden_size, sparse=True)
    offsets = nn.Embedding(inputs.vocab_size, 1, sparse=True)
    hidden = inputs.hidden.clone().requires_grad_()

    def step() -> None:
        path, side = table[inputs.target], sign[inputs.target]
        score = torch.einsum("nh,nlh->nl", hidden, nodes(path)) + offsets(path).squeeze(-1)
        losses = F.softplus(side * score) * side.abs()
        backward(losses.sum(1).mean(), hidden, nodes.weight, offsets.weight)

    return step


@competes("NCE, noise per token", "torch: Embedding(sparse=True), einsum")
def gathered_noise(inputs: Inputs) -> Step:
    """K rows gathered for every token, with one product per pair."""
    assert inputs.num_samples is not None
    k = inputs.num_samples
    noise = make_noise("unigram", inputs.vocab_size, zipf_counts(inputs.vocab_size))
    rows = nn.Embedding(inputs.vocab_size, inputs.hidden_size, sparse=True)
    offsets = nn.Embedding(inputs.vocab_size, 1, sparse=True)
    hidden = inputs.hidden.clone().requires_grad_()

    def step() -> None:
        drawn = noise.sample(inputs.num_tokens * k, hidden.device).view(-1, k)
        ids = torch.cat([inputs.target.unsqueeze(1), drawn], 1)
        score = torch.einsum("nh,nkh->nk", hidden, rows(ids)) + offsets(ids).squeeze(-1)
        odds = score - (noise.log_prob(ids) + torch.tensor(k).log()).float()
        losses = F.softplus(-odds[:, 0]) + F.softplus(odds[:, 1:]).sum(1)
        backward(losses.mean(), hidden, rows.weight, offsets.weight)

    return step


@competes("adaptive softmax", "torch: AdaptiveLogSoftmaxWithLoss")
def torch_adaptive(inputs: Inputs) -> Step:
    """Unlike ours, its tails have no bias."""
    layer = nn.AdaptiveLogSoftmaxWithLoss(
        inputs.hidden_size, inputs.vocab_size, cutoffs(inputs), head_bias=True
    )
    hidden = inputs.hidden.clone().requires_grad_()
    return lambda: backward(layer(hidden, inputs.target).loss, hidden, *layer.parameters())
