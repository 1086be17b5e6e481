"""The size that advice is asked for, as users give it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from softmax_bench.advise.workload import Workload, workload
from softmax_bench.classes.counts import check_counts
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.measure import zipf_counts

_BYTES_A_CLASS = 24
"""Memory for the frequencies and what is derived from them."""

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """A size, and how often each class occurs, if known."""

    vocab_size: int
    hidden_size: int
    num_tokens: int
    counts: Counts | None = None

    def workloads(self, specs: Sequence[str]) -> list[Workload]:
        """A step of each layer, without allocating its parameters.

        Raises:
            SoftmaxBenchError: A layer cannot be created at this size.
        """
        counts = zipf_counts(self.vocab_size) if self.counts is None else self.counts
        return [
            workload(spec, self.vocab_size, self.hidden_size, self.num_tokens, counts)
            for spec in specs
        ]


def ask(
    vocab_size: int | None, hidden_size: int, num_tokens: int, counts_file: Path | None
) -> Question:
    """Parse a question; the number of classes may follow from the counts.

    Raises:
        SoftmaxBenchError: A size is missing or not positive, or the counts do not match it.
    """
    counts = None if counts_file is None else read_counts(counts_file)
    if vocab_size is None:
        if counts is None:
            raise SoftmaxBenchError("give the number of classes with --vocab 250000 or --counts")
        vocab_size = len(counts)
    for option, size in (
        ("--vocab", vocab_size),
        ("--hidden", hidden_size),
        ("--tokens", num_tokens),
    ):
        if size < 1:
            raise SoftmaxBenchError(f"{option} must be at least 1, not {size}")
    needed, memory = _BYTES_A_CLASS * vocab_size, psutil.virtual_memory().total
    if needed > memory:
        raise SoftmaxBenchError(
            f"--vocab {vocab_size:,}: the frequencies of that many classes alone take "
            f"{needed / 1e9:,.0f} GB, and this machine has {memory / 1e9:,.0f} GB"
        )
    if counts is not None:
        counts = check_counts(counts, vocab_size)
    return Question(vocab_size, hidden_size, num_tokens, counts)


def read_counts(path: Path) -> Counts:
    """Read how often each class occurs, from an array (``.npy``) or a text file of numbers.

    Raises:
        SoftmaxBenchError: There is no such file, or it holds something else.
    """
    try:
        if path.suffix == ".npy":
            counts = np.load(path, allow_pickle=False)
        else:
            counts = np.array(path.read_text().split(), dtype=np.float64)
    except OSError as error:
        raise SoftmaxBenchError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise SoftmaxBenchError(
            f"{path} does not contain counts: expected an array (.npy), or a text file with one "
            f"number per class ({error})"
        ) from error
    if counts.ndim != 1 or not np.issubdtype(counts.dtype, np.number) or not len(counts):
        raise SoftmaxBenchError(
            f"{path} must contain one number per class, not {counts.dtype} of shape {counts.shape}"
        )
    return counts.astype(np.float64)


_BYTES = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[kmgt])(?P<binary>i?)b?", re.IGNORECASE)


def read_bytes(text: str) -> float:
    """An amount of memory, such as ``4GB`` or ``512MiB``.

    Raises:
        SoftmaxBenchError: The text is not such an amount.
    """
    match = _BYTES.fullmatch(text.strip())
    if match is None or not float(match["number"]):
        raise SoftmaxBenchError(f"cannot read {text!r} as an amount of memory; write it like 4GB")
    power = " kmgt".index(match["unit"].lower())
    return float(match["number"]) * (1024 if match["binary"] else 1000) ** power
