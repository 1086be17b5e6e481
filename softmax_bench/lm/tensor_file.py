"""Numbers, strings and tensors in nested lists and dicts, as a file that contains nothing else.

It is a safetensors file: tensors by name, and a JSON header. Unlike a pickle, it cannot contain
code (``torch.load`` reads pickles, which before torch 2.6 could run code even with
``weights_only=True``).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from softmax_bench.files import written_whole


class UselessFileError(Exception):
    """A file that cannot be used; the message says why, as in "the file ..."."""


def write_tensors(path: Path, identity: Mapping[str, str], content: Any) -> None:
    """Write ``content`` atomically into a folder, which is created if necessary.

    Tensors are written from where they are, without a copy in memory.

    Args:
        path: The file; an existing one is replaced.
        identity: An identity that :func:`read_tensors` must be given again.
        content: None, numbers, texts, tensors, and dicts, lists and tuples of them.

    Raises:
        OSError: It cannot be written; an existing file is kept.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_pack(content, "", tensors))
    header = {"identity": json.dumps(dict(identity)), "content": text}
    header["checksum"] = _checksum(text, tensors)
    with written_whole(path) as unfinished:
        try:
            save_file(tensors, unfinished, header)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def read_tensors(path: Path, identity: Mapping[str, str]) -> Any:
    """Read the content that was written.

    Raises:
        FileNotFoundError: There is no such file.
        UselessFileError: It is damaged or cannot be read, or has another identity.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            written = json.loads(header["identity"])
            other = [name for name in identity if written.get(name) != identity[name]]
            if other:
                raise UselessFileError(f"was made with another {' and another '.join(other)}")
            # Copy, because the file's own memory is not aligned as torch's is.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if header["checksum"] != _checksum(header["content"], tensors):
            raise UselessFileError("is damaged: its checksum is wrong")
        return _unpack(json.loads(header["content"]), tensors)
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, AttributeError, LookupError, ValueError) as error:
        raise UselessFileError(f"is damaged: {error}") from error


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` in JSON's types; its tensors are taken out under names that tell their position."""
    if isinstance(value, Tensor):
        fills_storage = value.untyped_storage().nbytes() == value.nbytes
        is_unshared = all(value.data_ptr() != other.data_ptr() for other in tensors.values())
        # Copy tensors that share memory, which safetensors rejects.
        value = value.detach().contiguous()
        tensors[name] = value if fills_storage and is_unshared else value.clone()
        return {"tensor": name}
    if isinstance(value, dict):
        inside = f"{name}." if name else ""
        items = [[key, _pack(item, f"{inside}{key}", tensors)] for key, item in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_pack(item, f"{name}.{n}", tensors) for n, item in enumerate(value)]}
    assert value is None or isinstance(value, bool | int | float | str), type(value)
    return value


def _unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    """Reverse :func:`_pack`."""
    if not isinstance(packed, dict):
        return packed
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in value}
    items = [_unpack(item, tensors) for item in value]
    return tuple(items) if kind == "tuple" else items


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32, which detects damage by a disk, not tampering."""
    checksum = zlib.crc32(text.encode())
    for name in sorted(tensors):
        flat = tensors[name].cpu().reshape(-1).view(torch.uint8)
        checksum = zlib.crc32(flat.numpy().data, checksum)
    return f"{checksum:08x}"
