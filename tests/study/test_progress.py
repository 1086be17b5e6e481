"""What a running study shows, in a terminal and elsewhere."""

from __future__ import annotations

import time
from io import StringIO

import msgspec
import pytest
from rich.console import Console

from softmax_bench.records.record import FailureRecord
from softmax_bench.records.trial import trial_id
from softmax_bench.study.jobs.job import Evaluated, Progress, trials_of
from softmax_bench.study.plan.plan import State, Step
from softmax_bench.study.plan.time_left import RunningStep, TimeLeft
from softmax_bench.study.run.progress import ProgressDisplay
from tests.records import train_record
from tests.study.jobs import speed_job, train_job

FULL = Step("full V=1,000", train_job("full"), State.DUE)
NCE = Step("nce[/] V=1,000", train_job("nce"), State.DUE)
TIMING = Step("timing 2 layers", speed_job("full", "nce"), State.DUE)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of day in its first place, to be set."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def shown(display: ProgressDisplay) -> str:
    file = display._console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


def hear(
    display: ProgressDisplay, step: Step, clock: list[float], reports: list[tuple[float, float]]
) -> None:
    """Progress of a step at these times."""
    for clock[0], done in reports:
        display.reported(step, Progress(done=done, total=1000))


def test_lines_where_there_is_no_terminal(clock: list[float]) -> None:
    display = ProgressDisplay(Console(file=StringIO(), width=50))
    with display:
        display.planned([FULL, NCE, TIMING])
        display.started(FULL)
        hear(display, FULL, clock, [(1, 100), (2, 140), (3, 300), (4, 350), (9, 600)])
        display.reported(FULL, Evaluated(tokens=600, train_loss=1.0, valid_perplexity=99.0))
        display.tick()
        clock[0] = 31.0
        display.tick()
        display.finished(FULL, [train_record("full", 1000, 100.0)])
    assert shown(display).splitlines() == [
        "4 trials",
        "full V=1,000: 60%, 50 tokens/s, ppl 99.0",
        "0 of 4 trials done, 1 running, 0 failed, about 0:30 left",
        "full V=1,000: validation perplexity 100.00; 31.0 s, of which 9.0 s training (111 "
        "tokens/s) and 0.0 s evaluation",
    ]


def test_a_live_table_in_a_terminal(clock: list[float]) -> None:
    console = Console(file=StringIO(), width=100, force_terminal=True, color_system=None)
    display = ProgressDisplay(console, slots=2)
    with display:
        display.planned([FULL, NCE])
        display.started(FULL)
        display.started(NCE)
        display.tick()
        clock[0] = 5.0
        display.reported(NCE, Progress(done=500, total=1000))
        display.tick()
    assert "nce[/] V=1,000" in shown(display)
    assert "starts" in shown(display)
    assert "50%" in shown(display)
    assert "0 of 2 trials done, 2 running" in shown(display)


def test_each_failure_is_a_line() -> None:
    display = ProgressDisplay(Console(file=StringIO(), width=80))
    trial = trials_of(TIMING.job)[1]
    failure = FailureRecord(
        id=trial_id(trial), started="", of="speed", configuration=msgspec.to_builtins(trial),
        cause="crash", reason="crashed [bold] with SIGSEGV", seconds=1.0, log="",
    )  # fmt: skip
    display.planned([TIMING])
    display.started(TIMING)
    display.failed(TIMING, [failure])
    assert "timing 2 layers (nce) failed: crashed [bold] with SIGSEGV" in shown(display)


def test_time_left(clock: list[float]) -> None:
    left = TimeLeft()
    assert left.estimate([FULL, NCE, TIMING], [], 1) is None
    run = RunningStep(FULL)
    clock[0] = 10.0  # for 1,000 tokens
    left.learn(run)
    assert left.estimate([NCE], [], 1) == pytest.approx(10)
    assert left.estimate([NCE, TIMING], [], 2) == pytest.approx(5 + 1.5)
    assert left.estimate([Step("", FULL.job, State.DONE)], [], 1) == 0
    going = RunningStep(NCE)
    for done in (100, 200, 300, 400, 500):
        clock[0] += 1
        going.update(Progress(done=done, total=1000))
    planned_anew = Step(NCE.title, train_job("nce"), State.DUE)
    assert left.estimate([FULL, planned_anew], [going], 1) == pytest.approx(10 + 5)
    going.update(Progress(done=1001, total=1000))  # the last window is whole
    assert left.estimate([planned_anew], [going], 1) == 0


def test_neither_the_first_moments_nor_a_pause_make_a_rate(clock: list[float]) -> None:
    """A study once said "332 tokens/s, about 3:00:00 left" where 7,500 and 9 minutes were right."""
    left, run = TimeLeft(), RunningStep(FULL)
    clock[0] = 1.0
    left.learn(run)  # 1,000 tokens a second
    run = RunningStep(FULL)
    rest = [FULL, *(Step("", train_job("full", rate=rate), State.DUE) for rate in (1.0, 2.0))]
    for now, done in ((20, 1), (20, 90), (21, 100)):
        clock[0] = now
        run.update(Progress(done=done, total=1000))
        assert run.rate is None
        assert left.estimate(rest, [run], 1) == pytest.approx(3, rel=0.2)
    for now, done in ((22, 200), (222, 300), (223, 400), (224, 500)):  # stopped for 200 s
        clock[0] = now
        run.update(Progress(done=done, total=1000))
    assert run.rate == pytest.approx(100)
