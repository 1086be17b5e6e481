"""When a calibration is made, how long it may take, and when it is made again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from softmax_bench.advise import calibration
from softmax_bench.advise.calibration import LEAST_SIZES, MOST_SECONDS, SIZES, Calibration, Cell
from softmax_bench.advise.workload import workload
from softmax_bench.records.result import Disturbance

SETTING = calibration.this_setting(threads=1, device="cpu", dtype="float32", optimizer="sgd")


class Machine:
    """Takes some seconds for each size, while others take a share of the processor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.time, self.seconds, self.foreign, self.calm = 0.0, seconds, 0.0, True
        monkeypatch.setattr("softmax_bench.advise.calibration.time.monotonic", lambda: self.time)
        monkeypatch.setattr(calibration, "measure", self.measure)
        monkeypatch.setattr(calibration, "watch_machine", self.watch)
        monkeypatch.setattr(calibration, "is_calm", lambda: self.calm)

    def measure(self, specs: Sequence[str], setting: Any, **options: Any) -> list[Cell]:
        self.time += self.seconds
        for _ in specs:
            options["on_cell"]()
        ((classes, width, tokens),) = options["sizes"]
        loads = [workload(spec, classes, width, tokens, None) for spec in specs]
        return [Cell(workload=load, seconds=1.0, low=1.0, high=1.0, peak_bytes=1) for load in loads]

    @contextmanager
    def watch(self) -> Iterator[list[Disturbance]]:
        seen: list[Disturbance] = []
        yield seen
        # A laptop's frequency always changes: that is no reason to begin anew.
        seen.append(
            Disturbance(foreign=self.foreign, stolen=0.0, clock_change=0.5, switches_per_second=0.0)
        )


def sizes(known: Calibration) -> int:
    return len({cell.workload.size for cell in known.cells})


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.1, len(SIZES)), (5.0, int(MOST_SECONDS // 5.0) + 1), (60.0, LEAST_SIZES)],
)
def test_no_size_is_begun_after_the_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, expected: int
) -> None:
    Machine(monkeypatch, seconds)
    shares: list[float] = []
    known = calibration.calibrated(["full", "nce"], SETTING, tmp_path, on_share=shares.append)
    assert sizes(known) == expected
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_one_that_was_disturbed_is_kept_and_made_again_when_the_machine_is_calm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 0.1)
    machine.foreign, machine.calm = 0.5, False
    first = calibration.calibrated(["full"], SETTING, tmp_path)
    assert "50% of the processor" in first.disturbed
    assert calibration.calibrated(["full"], SETTING, tmp_path) == first  # still busy
    machine.foreign = 0.0
    more = calibration.calibrated(["full", "nce"], SETTING, tmp_path)
    assert more.disturbed == first.disturbed  # a part of it was
    machine.calm = True
    again = calibration.calibrated(["nce"], SETTING, tmp_path)
    assert again.disturbed == ""
    assert again.layers == ["nce"]
    before = machine.time
    assert calibration.calibrated(["nce"], SETTING, tmp_path) == again
    assert machine.time == before
