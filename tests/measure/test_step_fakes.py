"""A step's phases and memory, on layers whose time and memory are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from softmax_bench.classes.draws import draws
from softmax_bench.layers import FullSoftmax
from softmax_bench.measure import LayerInference, LayerStep, elapsed, moment
from softmax_bench.measure import disturbance as watching
from softmax_bench.measure.disturbance import watch_machine
from softmax_bench.records.result import Disturbance

CPU = torch.device("cpu")


class Clock:
    """Stands still but for what the fakes say that they take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 0.0
        monkeypatch.setattr("softmax_bench.measure.step.moment", lambda device: self.time)

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class _SleepsInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, clock: Clock, seconds: float) -> Tensor:
        ctx.clock, ctx.seconds = clock, seconds
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.clock.sleep(ctx.seconds)
        return gradient, None, None


class Sleeper(FullSoftmax):
    """Draws for 1 s, in parts, forward takes 4 s and backward 8 s."""

    clock: Clock

    @draws
    def choose_negatives(self) -> None:
        self.clock.sleep(0.25)
        self.choose_more()

    @draws
    def choose_more(self) -> None:
        self.clock.sleep(0.75)

    def forward(self, hidden: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        self.choose_negatives()
        self.clock.sleep(4)
        loss: Tensor = _SleepsInBackward.apply(super().forward(hidden, target), self.clock, 8.0)
        return loss

    def target_log_prob(self, hidden: Tensor, target: Tensor) -> Tensor:
        self.clock.sleep(16)
        return super().target_log_prob(hidden, target)

    def topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        self.clock.sleep(32)
        return super().topk(hidden, k)


def test_the_phases_of_a_layer_that_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Sleeper(3, 5)
    layer.clock = Clock(monkeypatch)
    step = LayerStep(layer, 4, encoder=None)
    monkeypatch.setattr(step.optimizer, "step", lambda: layer.clock.sleep(64))
    monkeypatch.setattr(step, "clip", lambda: layer.clock.sleep(128))
    for _ in range(2):  # nothing is carried over
        assert step() == {
            "draw": 1, "forward": 4, "backward": 8, "clip": 128, "optimizer": 64, "step": 205,
        }  # fmt: skip
    assert LayerInference(step)() == {"evaluation": 16, "decoding": 32, "step": 48}


def test_an_encoder_runs_before_each_step_and_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = Sleeper(3, 5)
    layer.clock = Clock(monkeypatch)
    monkeypatch.setattr("softmax_bench.measure.encoder_step.moment", lambda _: layer.clock.time)
    step = LayerStep(layer, 4)
    forward = nn.LSTM.forward

    def slow(self: nn.LSTM, *inputs: Any) -> Any:
        layer.clock.sleep(1000)
        return forward(self, *inputs)

    monkeypatch.setattr(nn.LSTM, "forward", slow)
    phases = step()
    assert phases["encoder"] == 1000
    assert phases["step"] == 13
    assert LayerInference(step)()["step"] == 48
    assert layer.clock.time == 2000 + 13 + 48


def test_what_is_done_now_and_then_is_shared_by_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Sleeper(3, 5)
    clock = layer.clock = Clock(monkeypatch)

    def settle() -> int:
        clock.sleep(512)
        return 16

    monkeypatch.setattr(layer, "settle", settle)
    step = LayerStep(layer, 4, encoder=None)
    phases = step()
    assert phases["draw"] == 1 + 32
    assert phases["step"] == 13 + 32


class Hoarder(FullSoftmax):
    """Holds a buffer during forward that nobody else needs."""

    held = 0

    def forward(self, hidden: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        buffer = torch.empty(self.held, dtype=torch.uint8)
        loss = super().forward(hidden, target)
        del buffer
        return loss


def test_memory_of_a_layer_that_holds_a_known_buffer() -> None:
    step = LayerStep(Hoarder(3, 5), 4)
    without = step.memory()
    Hoarder.held = 10**6
    with_buffer = step.memory()
    assert with_buffer.peak - without.peak == pytest.approx(10**6, abs=2000)
    assert with_buffer.gradients == without.gradients == 4 * (5 * 3 + 5)
    assert with_buffer.parameters == 4 * (5 * 3 + 5)


class Event:
    """As torch's, on a clock of its own."""

    time = 0.0
    waits = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: object) -> None:
        self.at = Event.time

    def synchronize(self) -> None:
        Event.waits += 1

    def elapsed_time(self, other: Event) -> float:
        return 1e3 * (other.at - self.at)


def test_on_cuda_the_device_keeps_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    begin = moment(torch.device("cuda"))
    Event.time += 0.25
    end = moment(torch.device("cuda"))
    assert Event.waits == 0  # asking for the time must not stop the queue
    assert elapsed(begin, end) == 0.25
    assert Event.waits == 1


class Reading:
    """Counters of two cores; the second reading is 10 s later."""

    readings = 0

    def __init__(self) -> None:
        later = Reading.readings % 2
        Reading.readings += 1
        self.wall, self.cores = 10.0 * later, 2
        self.busy, self.own = 15.0 * later, 11.0 * later
        self.stolen, self.switches = 1.0 * later, 5000 * later
        self.frequency = 3000.0 - 600.0 * later


def test_what_else_the_machine_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_Reading", Reading)
    with watch_machine() as seen:
        pass
    found = seen[0]
    assert found.foreign == pytest.approx(0.2)
    assert found.stolen == pytest.approx(0.05)
    assert found.clock_change == pytest.approx(0.2)
    assert found.switches_per_second == 500
    assert found.reasons == [
        "other processes took 20% of the processor",
        "the host withheld 5% of the processor",
        "the processor's frequency changed by 20%",
        "it was preempted 500 times per second",
    ]
    quiet = Disturbance(foreign=0.01, stolen=0.0, clock_change=0.02, switches_per_second=20)
    assert quiet.reasons == []
