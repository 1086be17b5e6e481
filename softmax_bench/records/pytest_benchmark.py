"""Timings of ``pytest --benchmark-only --benchmark-json=FILE``, as the frames of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.records.frames import Results
from softmax_bench.records.record import Environment
from softmax_bench.records.trial import BPTT


class _Stats(msgspec.Struct):
    median: float
    data: list[float] | None = None


class _ExtraInfo(msgspec.Struct):
    layer: str
    phase: str
    V: int
    H: int
    N: int
    optimizer: str
    clip_norm: float
    seed: int
    threads: int
    device: str
    dtype: str
    parameters: int
    rows_touched: int
    flops: float
    bytes: float
    upkeep: float = 0.0
    """Seconds of a step's share in what its layer does only now and then, not in the times."""
    encoder: str | None = None
    """None in files from before an encoder's step preceded each timed one."""


class _Benchmark(msgspec.Struct):
    fullname: str
    extra_info: _ExtraInfo
    stats: _Stats


class _Machine(msgspec.Struct):
    softmax_bench: Environment


class _File(msgspec.Struct):
    machine_info: _Machine
    benchmarks: list[_Benchmark]
    datetime: str


def read_pytest_benchmark(path: Path) -> Results:
    """Read the measurements of ``benchmarks/test_layer_step.py``.

    Raises:
        SoftmaxBenchError: The file is something else, or lacks the individual times.
    """
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise SoftmaxBenchError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise SoftmaxBenchError(
            f"{path} is not what 'pytest --benchmark-only --benchmark-json=FILE' writes of this "
            f"project's benchmarks: {error}"
        ) from error
    if not file.benchmarks:
        raise SoftmaxBenchError(f"{path} holds no benchmark")
    environment = msgspec.structs.asdict(file.machine_info.softmax_bench)
    return Results(
        speed=pd.DataFrame([_row(path, file.datetime, one) for one in file.benchmarks]),
        environments=pd.DataFrame([{"id": one.fullname, **environment} for one in file.benchmarks]),
    )


def _row(path: Path, started: str, benchmark: _Benchmark) -> dict[str, Any]:
    if not benchmark.stats.data:
        raise SoftmaxBenchError(
            f"{path} has no single times, which intervals need: write it with --benchmark-json, "
            "or with --benchmark-save-data"
        )
    info = msgspec.structs.asdict(benchmark.extra_info)
    for short, field in {"V": "vocab_size", "H": "hidden_size", "N": "num_tokens"}.items():
        info[field] = info.pop(short)
    upkeep = info.pop("upkeep") * (info["phase"] in ("forward", "step"))
    return {
        "id": benchmark.fullname,
        "started": started,
        "corpus_sha256": None,
        "embedding_size": None,
        "num_layers": 1,
        "bptt": BPTT,
        **info,
        "seconds": benchmark.stats.median + upkeep,
        "low": np.nan,
        "high": np.nan,
        "repetitions": len(benchmark.stats.data),
        "samples": [seconds + upkeep for seconds in benchmark.stats.data],
        "stopped": "repetitions",
        "peak_bytes": np.nan,
    }
