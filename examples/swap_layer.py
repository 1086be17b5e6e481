"""Replace the output layer of an existing torch model: ``python examples/swap_layer.py``.

The model is a small classifier of sequences that ends in ``nn.Linear`` and cross-entropy. Two
things change: the layer and the loss.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softmax_bench import OutputLayer, SampledSoftmax


class Model(nn.Module):
    """Your model: an encoder and a Linear layer over the classes."""

    def __init__(self, num_classes: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, hidden_size)
        self.encoder = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.output: nn.Module = nn.Linear(hidden_size, num_classes)

    def hidden(self, ids: Tensor) -> Tensor:
        """Hidden states of shape (batch, time, hidden)."""
        states: Tensor = self.encoder(self.embedding(ids))[0]
        return states


def train(model: Model, batches: list[Tensor]) -> float:
    """Train, before or after the swap; return the exact perplexity of the last batch."""
    layer = model.output
    swapped = isinstance(layer, OutputLayer)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for ids in batches[:-1]:
        hidden, target = model.hidden(ids[:, :-1]), ids[:, 1:]
        if swapped:
            loss = layer(hidden, target)  # the layer is the loss
        else:
            loss = F.cross_entropy(layer(hidden).flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        hidden, target = model.hidden(batches[-1][:, :-1]), batches[-1][:, 1:]
        if isinstance(layer, OutputLayer):
            return math.exp(-float(layer.target_log_prob(hidden, target).mean()))
        return math.exp(float(F.cross_entropy(layer(hidden).flatten(0, 1), target.flatten())))


def main() -> None:
    """Train the original model, then the one with sampled softmax."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    if min(options.classes, options.steps) < 1:
        parser.error("--classes and --steps must be at least 1")
    torch.manual_seed(0)
    # Each class is followed by its double, so that there is something to learn.
    starts = torch.randint(options.classes, (options.steps + 1, 16, 1))
    batches = list((starts * 2 ** torch.arange(12)) % options.classes)
    counts = torch.cat(batches[:-1]).flatten().bincount(minlength=options.classes)

    model = Model(options.classes, 64)
    print(f"nn.Linear and cross-entropy: perplexity {train(model, batches):.1f}")

    model = Model(options.classes, 64)
    model.output = SampledSoftmax(64, options.classes, num_samples=512, class_counts=counts)
    print(f"sampled softmax:             perplexity {train(model, batches):.1f}")


if __name__ == "__main__":
    main()
