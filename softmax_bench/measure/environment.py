"""The machine that a result was made on, without names of hosts or users."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from softmax_bench import __version__

_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "GOMP_SPINCOUNT",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "LD_PRELOAD",
    "MALLOC_ARENA_MAX",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "OPENBLAS_NUM_THREADS",
)


def describe_environment() -> dict[str, Any]:
    """Fields of :class:`softmax_bench.records.record.Environment`."""
    import psutil

    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "driver": _driver(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scipy")},
            "softmax-bench": __version__,
        },
        "blas": _blas(),
        "git_commit": _git_commit(),
        "variables": {
            name: _without_folders(os.environ[name]) for name in _VARIABLES if name in os.environ
        },
    }


@cache
def _processor() -> str:
    import cpuinfo

    return cpuinfo.get_cpu_info().get("brand_raw") or platform.processor() or "unknown"


def _blas() -> str:
    """Name and version of the library behind torch's matrix products on the CPU."""
    match = re.search(r"Math Kernel Library Version ([\d.]+)", torch.__config__.show())
    if match:
        return f"MKL {match[1]}"
    return "MKL" if torch.backends.mkl.is_available() else "other"


def _driver() -> str | None:
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"{_nvidia()}CUDA {torch.version.cuda}, compute capability {major}.{minor}"


def _nvidia(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Version of the kernel driver; empty if unknown."""
    if not file.is_file():
        return ""
    match = re.search(r"Kernel Module.*?  (\d[\d.]+)", file.read_text())
    return f"driver {match[1]}, " if match else ""


def _without_folders(value: str) -> str:
    """``value`` with paths cut to file names, since LD_PRELOAD would reveal a user's folders."""
    return re.sub(r"[^\s:]*/", "", value)


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _git_commit() -> str | None:
    """Commit of the checkout that this package runs from; None if it is installed elsewhere."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            [
                "git",
                "-C",
                str(root),
                "describe",
                "--always",
                "--dirty",
                "--abbrev=12",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
