"""Make up users who choose items, to try layers on: ``python examples/make_interactions.py``.

A user likes items by a low-rank model, ``softmax(u . v_j + log popularity_j)``, and popularity
follows Zipf's law. What is saved are the users as an encoder would give them, with some noise, and
one chosen item each: arrays for ``softmax-bench run --hidden users.npy --targets items.npy``. What
is printed is how well a model would do that knew the users without the noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from softmax_bench.errors import brief_errors

TASTE = 3.0
"""Standard deviation of ``u . v_j``: how much taste matters beside popularity."""
NOISE = 0.25
"""Standard deviation of a number of a user's state, where the taste itself has 1."""
AT_ONCE = 1000
K = 10


def choose(scores: Tensor, generator: torch.Generator) -> Tensor:
    """One item a row, drawn from the softmax of its scores."""
    cumulative = scores.softmax(1).double().cumsum(1)
    drawn = torch.rand(len(scores), 1, dtype=torch.float64, generator=generator)
    return torch.searchsorted(cumulative, drawn * cumulative[:, -1:]).squeeze(1)


def quality(scores: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row: nats, and recall and NDCG at 10."""
    log_prob = scores.log_softmax(1).gather(1, items.unsqueeze(1)).squeeze(1)
    hits = (scores.topk(K).indices == items.unsqueeze(1)).float()
    gain = hits @ (1 / torch.arange(2, K + 2).log2())
    return -log_prob, hits.sum(1), gain


def main() -> None:
    """Draw the examples, save them, and say what the truth would reach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--examples", type=int, default=400_000)
    parser.add_argument("--size", type=int, default=32, help="numbers of a user's state")
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()
    if options.items < K or min(options.examples, options.size) < 1:
        parser.error(f"--items must be at least {K}, --examples and --size at least 1")
    options.out.mkdir(parents=True, exist_ok=True)

    generator = torch.Generator().manual_seed(0)
    shuffled = torch.randperm(options.items, generator=generator)
    log_popularity = -torch.log1p(shuffled.float())  # Zipf's law, in no order of ids
    vectors = torch.randn(options.items, options.size, generator=generator)
    vectors *= TASTE / vectors.norm(dim=1, keepdim=True)

    users = np.empty((options.examples, options.size), np.float32)
    items = np.empty(options.examples, np.int64)
    qualities = []
    for start in range(0, options.examples, AT_ONCE):
        number = min(AT_ONCE, options.examples - start)
        taste = torch.randn(number, options.size, generator=generator)
        scores = torch.addmm(log_popularity, taste, vectors.T)
        chosen = choose(scores, generator)
        noise = torch.randn(taste.shape, generator=generator)
        users[start : start + number] = taste + NOISE * noise
        items[start : start + number] = chosen
        if start < 10 * AT_ONCE:
            qualities.append(torch.stack(quality(scores, chosen)))

    np.save(options.out / "users.npy", users)
    np.save(options.out / "items.npy", items)
    nats, recall, gain = torch.cat(qualities, 1).mean(1).tolist()
    print(
        f"{options.examples:,} examples of {len(np.unique(items)):,} items; the truth: perplexity "
        f"{np.exp(nats):.1f}, recall at {K} {recall:.3f}, NDCG at {K} {gain:.3f}"
    )


if __name__ == "__main__":
    with brief_errors("make_interactions.py"):
        main()
