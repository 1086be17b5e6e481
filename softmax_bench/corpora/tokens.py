"""Token ids in a memory-mapped file, for texts of any size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from softmax_bench.corpora.text import SPLITS

Ids = npt.NDArray[np.int32]

_STORED = np.dtype("<i4")
_STRETCH = 2**20


@dataclass(frozen=True)
class Tokens:
    """The splits of a text as numbers of its types."""

    types: tuple[str, ...]
    """The spelling of each number."""
    splits: Mapping[str, Ids]
    sha256: str
    """The hash computed by :func:`token_hash`."""
    sizes: tuple[int, ...]
    """Bytes of each split's text: its words, each with the space or line end after it."""
    unknown_types: int = 0
    """How many types ``<unk>`` stands for."""


def stretches(tokens: Ids) -> Iterator[Ids]:
    """Successive parts of a long array, for passing over one that is larger than memory."""
    for start in range(0, len(tokens), _STRETCH):
        yield tokens[start : start + _STRETCH]


def count(tokens: Ids, num_types: int) -> npt.NDArray[np.int64]:
    """(num_types,) how often each number occurs."""
    counts = np.zeros(num_types, dtype=np.int64)
    for part in stretches(tokens):
        counts += np.bincount(part, minlength=num_types)
    return counts


def token_hash(num_types: int, splits: Mapping[str, Ids], types: Sequence[str] | None) -> str:
    """sha256 of all tokens and their types; equal only for equal prediction tasks.

    Args:
        num_types: V.
        splits: Numbers from 0 to V - 1.
        types: The types, or None if they have no spelling.
    """
    digest = hashlib.sha256(f"{num_types}".encode())
    for split in SPLITS:
        digest.update(len(splits[split]).to_bytes(8, "little"))
        for part in stretches(splits[split]):
            digest.update(part.astype(_STORED, copy=False).tobytes())
    if types is not None:
        digest.update("\n".join(types).encode())
    return digest.hexdigest()


def append_tokens(file: BinaryIO, tokens: Ids) -> None:
    """Append tokens to the file."""
    file.write(tokens.astype(_STORED, copy=False).tobytes())


def tokens_file(folder: Path) -> Path:
    """The file of a stored text's tokens: little-endian int32, split after split."""
    return folder / "tokens.i4"


def map_tokens(folder: Path) -> Ids:
    """All tokens of a stored text, read only when accessed."""
    # Return a plain array, because slicing numpy's class for mapped files takes ten times as long.
    return np.asarray(np.memmap(tokens_file(folder), _STORED, mode="r"))


def describe(
    folder: Path,
    types: Sequence[str],
    ends: Sequence[int],
    sizes: Sequence[int],
    *,
    unknown_types: int = 0,
) -> None:
    """Write the metadata that is needed to read the tokens.

    Args:
        folder: The folder with the tokens.
        types: The spelling of each number.
        ends: Where each split ends.
        sizes: Bytes of each split's text.
        unknown_types: How many types ``<unk>`` stands for.
    """
    (folder / "types.txt").write_bytes("\n".join(types).encode())
    description = {
        "ends": list(ends),
        "sizes": list(sizes),
        "unknown_types": unknown_types,
        "sha256": token_hash(len(types), cut(map_tokens(folder), ends), types),
    }
    sealed = description | {"seal": _seal(description)}
    (folder / "description.json").write_text(json.dumps(sealed), encoding="utf-8")


def read_tokens(folder: Path) -> Tokens | None:
    """Read a stored text; None if it differs from what was written in a single bit."""
    try:
        description = json.loads((folder / "description.json").read_text(encoding="utf-8"))
        if description.pop("seal") != _seal(description):
            return None
        types = tuple((folder / "types.txt").read_bytes().decode().split("\n"))
        tokens = map_tokens(folder)
        splits = cut(tokens, description["ends"])
        sha256 = token_hash(len(types), splits, types)
        if sha256 != description["sha256"] or len(tokens) != description["ends"][-1]:
            return None
        sizes = tuple(description["sizes"])
        return Tokens(types, splits, sha256, sizes, description["unknown_types"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _seal(description: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def cut(tokens: Ids, ends: Sequence[int]) -> dict[str, Ids]:
    """The splits of a text, given where each ends."""
    starts = [0, *ends[:-1]]
    return {
        split: tokens[start:end] for split, start, end in zip(SPLITS, starts, ends, strict=True)
    }
