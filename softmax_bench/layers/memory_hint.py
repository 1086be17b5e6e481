"""A hint in torch's error about what helps a step that does not fit in memory."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def add_memory_hint(
    error: RuntimeError, layer: str, options: Iterable[str], hidden: Tensor, num_classes: int
) -> None:
    """Add a note to an out-of-memory error: the layer, and which of its options need less."""
    if "memory" not in str(error):
        return
    ways = {
        "num_samples": "a smaller num_samples",
        "sparse": "sparse=True (gradients of the touched rows only)",
        "save_memory": "save_memory=True",
    }
    helpful = [ways[option] for option in ways if option in options]
    tokens = hidden.shape[:-1].numel()
    error.add_note(
        f"{layer} ran out of memory in a step on {tokens:,} tokens and {num_classes:,} classes: "
        "try " + ", or ".join([*helpful, "fewer tokens per step"])
    )
