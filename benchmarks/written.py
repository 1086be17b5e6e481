"""The files that benchmarks write."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from softmax_bench.files import write_file
from softmax_bench.measure import describe_environment


def write_json(path: Path, **content: object) -> None:
    """Write ``content``, the machine and the number of threads."""
    record = {"environment": describe_environment(), "threads": torch.get_num_threads(), **content}
    write_file(path, f"{json.dumps(record, indent=1)}\n".encode())


def write_results(folder: Path | None, name: str, table: str, **content: object) -> None:
    """Write ``NAME.json`` with the content and ``table.md``; nothing if there is no folder."""
    if folder is not None:
        write_json(folder / f"{name}.json", **content)
        write_file(folder / "table.md", table.encode())
