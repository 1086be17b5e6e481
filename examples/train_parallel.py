"""A sharded output layer and a replicated encoder, in two processes.

``torchrun --nproc-per-node 2 examples/train_parallel.py``
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from softmax_bench.errors import brief_errors
from softmax_bench.lm import LanguageModel, make_optimizer
from softmax_bench.parallel import (
    DataParallel,
    clip_grad_norm,
    create_parallel_layer,
    joined_processes,
)

CLASSES, HIDDEN, STEPS = 10_000, 64, 3


def main() -> None:
    """Train for some steps on random words."""
    layer = create_parallel_layer(  # V / P rows on each process, with row-sparse gradients
        "sampled", HIDDEN, CLASSES, tokens="divided", sparse=True
    )
    parallel = DataParallel(LanguageModel(layer, embedding_size=HIDDEN))  # the rest is replicated
    model = parallel.model
    optimizer = make_optimizer("adagrad", model.parameters(), 0.1)
    words = torch.randint(CLASSES, (21, 8))  # (time, batch): this process's own text
    inputs, targets = words[:-1], words[1:]
    for step in range(STEPS):
        optimizer.zero_grad()
        loss, _ = model(inputs, targets, None)  # the mean over the targets of all processes
        parallel.backward(loss, targets.numel())
        clip_grad_norm(model, 0.5)  # by the norm of the gradients of all processes
        optimizer.step()
        if dist.get_rank() == 0:
            print(f"step {step + 1}: {loss:.3f} nats")


if __name__ == "__main__":
    with brief_errors("train_parallel.py"), joined_processes():
        main()
