"""What disturbed the machine while something was measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from softmax_bench.records.result import Disturbance


class _Reading:
    def __init__(self) -> None:
        import psutil

        cpu, own = psutil.cpu_times(), psutil.Process().cpu_times()
        self.wall = time.perf_counter()
        self.cores = psutil.cpu_count() or 1
        # Linux counts a guest's time as a user's too; steal and iowait are nobody's work here.
        self.busy = sum(
            getattr(cpu, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq")
        )
        self.own = own.user + own.system
        self.stolen = getattr(cpu, "steal", 0.0)
        self.switches = psutil.Process().num_ctx_switches().involuntary
        frequency = psutil.cpu_freq()
        self.frequency = frequency.current if frequency else 0.0


@contextmanager
def watch_machine() -> Iterator[list[Disturbance]]:
    """Compare the machine's counters before and after; the list then holds the outcome.

    Counters advance every 10 ms, so that measurements under a second are judged coarsely.
    """
    outcome: list[Disturbance] = []
    before = _Reading()
    yield outcome
    after = _Reading()
    wall = max(after.wall - before.wall, 1e-9)
    everyone = (after.busy - before.busy) - (after.own - before.own)
    outcome.append(
        Disturbance(
            foreign=max(0.0, everyone) / (wall * after.cores),
            stolen=(after.stolen - before.stolen) / (wall * after.cores),
            clock_change=abs(after.frequency / before.frequency - 1) if before.frequency else 0.0,
            switches_per_second=(after.switches - before.switches) / wall,
        )
    )
