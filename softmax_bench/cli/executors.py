"""The choice of ``--executor``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from softmax_bench.errors import SoftmaxBenchError

if TYPE_CHECKING:
    from softmax_bench.study.executors.executor import Executor


class ExecutorName(StrEnum):
    """Possible values of ``--executor``."""

    LOCAL = "local"
    RAY = "ray"
    SLURM = "slurm"


def make_executor(name: ExecutorName, store: Path, slots: int, address: str | None) -> Executor:
    """Create an executor for ``store``.

    Raises:
        SoftmaxBenchError: It takes no address, is not installed, or nothing is found at the
            address.
    """
    if name is ExecutorName.RAY:
        from softmax_bench.study.executors.on_ray import RayExecutor

        return RayExecutor(store, slots, address)
    if name is ExecutorName.SLURM:
        from softmax_bench.study.executors.on_slurm import SlurmExecutor

        if address not in (None, "slurm", "local"):
            raise SoftmaxBenchError(
                f"--address {address}: Slurm needs no address; 'local' rehearses on this machine"
            )
        return SlurmExecutor(store, slots, address or "slurm")
    if address is not None:
        raise SoftmaxBenchError(f"--address {address} is for --executor ray or slurm")
    from softmax_bench.study.executors.local import LocalExecutor

    return LocalExecutor(store, slots)
