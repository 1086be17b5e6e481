"""Hidden states and targets of the user's own model, in two memory-mapped arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from softmax_bench.errors import SoftmaxBenchError

HELD_OUT = 0.1
"""Share of the examples for validation, and the same for testing."""
_FEWEST = 10
_BLOCK = 4096
"""Number of rows checked together, and of rows that enter the hash."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class States:
    """Examples of hidden states and their classes, split at random but always the same way."""

    name: str
    vocab_size: int
    sha256: str
    """Hash of all targets and of evenly spaced rows of the hidden states."""
    hidden: npt.NDArray[Any]
    """(M, H), mapped from its file."""
    targets: npt.NDArray[Any]
    """(M,), mapped from its file."""

    def split(self, split: str) -> Ids:
        """Positions of the examples of ``"train"``, ``"valid"`` or ``"test"``."""
        order = np.random.default_rng(0).permutation(len(self.targets))
        held_out = max(1, int(HELD_OUT * len(order)))
        bounds = {
            "test": slice(0, held_out),
            "valid": slice(held_out, 2 * held_out),
            "train": slice(2 * held_out, None),
        }
        return order[bounds[split]]

    @property
    def class_counts(self) -> Ids:
        """How often each class occurs among the training examples (V,)."""
        return np.bincount(self.targets[self.split("train")], minlength=self.vocab_size)


def load_states(
    hidden: Path, targets: Path, vocab_size: int | None = None, *, check: bool = True
) -> States:
    """Map two arrays into memory.

    Args:
        hidden: Floating-point ``.npy`` file of shape (M, H).
        targets: Integer ``.npy`` file of shape (M,), with class ids from 0.
        vocab_size: Number of classes; by default, one more than the largest id.
        check: Whether to look for hidden states that are not finite, which reads the whole file.

    Raises:
        SoftmaxBenchError: A file cannot be mapped, or its contents are invalid.
    """
    states, ids = _map(hidden), _map(targets)
    if states.ndim != 2 or not np.issubdtype(states.dtype, np.floating) or not states.shape[1]:
        raise SoftmaxBenchError(
            f"{hidden} must contain floating-point hidden states of shape (M, H), not "
            f"{states.dtype} of shape {states.shape}"
        )
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise SoftmaxBenchError(
            f"{targets} must contain whole numbers of shape (M,), one class per hidden state, not "
            f"{ids.dtype} of shape {ids.shape}"
        )
    if len(states) != len(ids):
        raise SoftmaxBenchError(
            f"{hidden} holds {len(states):,} hidden states, but {targets} {len(ids):,} targets"
        )
    if len(ids) < _FEWEST:
        raise SoftmaxBenchError(f"{len(ids)} examples cannot be split: expected at least {_FEWEST}")
    low, high = int(ids.min()), int(ids.max())
    size = high + 1 if vocab_size is None else vocab_size
    if low < 0 or high >= size:
        raise SoftmaxBenchError(
            f"{targets} holds class {low}: ids start at 0"
            if low < 0
            else f"{targets} holds class {high}: ids go from 0 to {size - 1}"
        )
    if check:
        _check_finite(hidden, states)
    return States(
        name=f"{hidden.name},{targets.name}",
        vocab_size=size,
        sha256=_hash(states, ids, size),
        hidden=states,
        targets=ids,
    )


def _map(path: Path) -> npt.NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise SoftmaxBenchError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise SoftmaxBenchError(
            f"{path} is not an array as numpy.save writes it (.npy): {error}"
        ) from error


def _check_finite(path: Path, states: npt.NDArray[Any]) -> None:
    for start in range(0, len(states), _BLOCK):
        finite = np.isfinite(states[start : start + _BLOCK]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise SoftmaxBenchError(f"{path} contains NaN or infinity, first in row {row:,}")


def _hash(states: npt.NDArray[Any], ids: npt.NDArray[Any], size: int) -> str:
    digest = hashlib.sha256(f"{states.shape} {states.dtype} {size}".encode())
    digest.update(ids.astype("<i8").tobytes())
    digest.update(states[:: max(1, len(states) // _BLOCK)].tobytes())
    return digest.hexdigest()
