from __future__ import annotations

import fcntl
import json
import time
from pathlib import Path

import pytest
import torch

import tests.parallel.checks
import tests.parallel.others
import tests.parallel.training  # noqa: F401 - all give their checks a name
from softmax_bench import ops
from softmax_bench.ops.cuda import draws as on_a_gpu
from softmax_bench.parallel import create_parallel_layer, joined_processes
from softmax_bench.parallel.exchange import total
from softmax_bench.parallel.layer import all_processes
from tests.parallel.processes import CHECKS, THE_END, run_checks

THREADS = Path("/proc/self/task")


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> dict[str, str]:
    """What became of the checks, which run once for all workers of pytest."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "processes"
    folder.mkdir(exist_ok=True)
    kept = folder / "outcomes"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_text(json.dumps(run_checks(folder)))
        outcomes: dict[str, str] = json.loads(kept.read_text())
    return outcomes


@pytest.mark.parametrize("name", [*CHECKS, THE_END])
def test_two_processes(name: str, outcomes: dict[str, str]) -> None:
    assert name in outcomes, "not run: a check before it failed"
    assert not outcomes[name], outcomes[name]


@pytest.mark.skipif(not THREADS.exists(), reason="threads are looked up as Linux shows them")
def test_no_thread_of_a_group_outlives_it(tmp_path: Path) -> None:
    """One that did could abort the process while the interpreter ends."""

    def of_gloo() -> list[str]:
        names = [(thread / "comm").read_text().strip() for thread in THREADS.iterdir()]
        return [name for name in names if "gloo" in name]

    with joined_processes(init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1):
        total(torch.ones(3), all_processes("cpu"))
        until = time.monotonic() + 30
        while not of_gloo() and time.monotonic() < until:  # a thread names itself once it runs
            time.sleep(0.01)
        assert of_gloo()
    assert not of_gloo()


@pytest.mark.parametrize("spec", ["sampled(replacement=True)", "nce"])
def test_a_gpus_samples_with_repeats_give_the_same_gradients(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients = []
    with joined_processes(init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1):
        for tally in (ops.tally, on_a_gpu.tally):
            monkeypatch.setattr("softmax_bench.layers.sampled.drawing.tally", tally)
            torch.manual_seed(0)
            layer = create_parallel_layer(spec, 4, 12, num_samples=9)
            layer(torch.randn(5, 4), torch.arange(5)).backward()
            gradients.append([p.grad.to_dense() for p in layer.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients)
