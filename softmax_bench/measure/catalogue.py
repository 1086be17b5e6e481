"""The page docs/layers.md: how the layers describe themselves, and what a step costs them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from softmax_bench.layers import OutputLayer, create_layer
from softmax_bench.measure.step import LayerStep, zipf_counts

NUM_TOKENS, HIDDEN_SIZE, VOCAB_SIZE = 700, 256, 100_000

_TEXT = """\
# The output layers

<!-- Made by "softmax-bench layers --markdown" from the layers' own descriptions: do not edit. -->

## Overview

A step has N targets of V classes, and hidden states of H numbers. k is the option `num_samples`,
and for `hierarchical_kary` it is `arity`.

{what}
## Training

Perplexity is exact and normalised for every layer; this table is about the training objective.

* *Exact*: the objective is the likelihood of the model itself, without an estimate and without a
  penalty.
* *Normalised*: whether the probability of a class is known without a sum over all classes. It may
  be known by construction, or approximately by training, which drives the scores to be normalised.
* *Gradient*: dense, or row-sparse if the layer is created with `sparse=True`, so that the cost of
  clipping and optimiser does not depend on V either.
* *Compiled*: in a model under `torch.compile`, a traced layer becomes part of the model's graph,
  with one operator for each of its passes over all classes. Before any other layer, the graph
  breaks once, and the layer runs as in eager mode, with the same loss, draws and gradients. Torch
  compiles neither row-sparse gradients nor sizes that depend on data.

{how}
## Cost of a training step

The table covers forward and backward with each layer's default options, for N = {tokens} targets,
H = {width} and V = {classes:,} classes that follow Zipf's law, in float32. Each layer states its
operations and rows (C clusters of `two_level`, K codewords of `midx`, D features of `kernel` and
`rff`); bytes moved are the fewest that these allow. Memory is that of the parameters
and the layer's tables. Activations are measured in one step on a CPU: the peak beyond parameters,
tables and the parameters' gradients (saved tensors, scratch, samples, the gradient of the hidden
states).

{cost}"""


def markdown(names: Sequence[str]) -> str:
    """The page about these layers, with one row per layer in each of its tables."""
    what, how, cost = [], [], []
    for name in names:
        torch.manual_seed(0)  # memory depends slightly on the draws
        layer = create_layer(name, HIDDEN_SIZE, VOCAB_SIZE, zipf_counts(VOCAB_SIZE), sparse=True)
        what.append(
            [f"`{name}`", f"`{type(layer).__name__}`", layer.scores, layer.good_for, layer.source]
        )
        how.append([f"`{name}`", *_training(layer)])
        cost.append([f"`{name}`", *_cost(layer)])
    return _TEXT.format(
        what=_table(["name", "class", "scores in a step", "good for", "source"], what),
        how=_table(["name", "exact", "normalised", "gradient", "class ids", "compiled"], how),
        cost=_table(
            [
                "name",
                "flop",
                "GFLOP",
                "MB moved",
                "rows touched",
                "parameters",
                "memory MB",
                "activations MB",
            ],
            cost,
        ),
        tokens=NUM_TOKENS,
        width=HIDDEN_SIZE,
        classes=VOCAB_SIZE,
    )


def _training(layer: OutputLayer) -> list[str]:
    sparse, all_parameters = list(layer.row_sparse_parameters()), list(layer.parameters())
    part = "" if len(sparse) == len(all_parameters) else "partly "
    return [
        "exact" if layer.exact else "estimate",
        layer.normalised,
        f"{part}row-sparse" if sparse else "dense",
        "sorted by frequency" if layer.needs_sorted_ids else "any order",
        "traced" if layer.traceable else "graph break",
    ]


def _cost(layer: OutputLayer) -> list[str]:
    cost = layer.cost(NUM_TOKENS)
    memory = sum(tensor.nbytes for tensor in [*layer.parameters(), *layer.buffers()])
    return [
        layer.step_flops,
        f"{cost.flops / 1e9:,.3g}",
        f"{cost.bytes / 1e6:,.3g}",
        f"{cost.rows_touched:,}",
        f"{cost.parameters:,}",
        f"{memory / 1e6:,.3g}",
        f"{LayerStep(layer, NUM_TOKENS).memory().activations / 1e6:,.1f}",
    ]


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
