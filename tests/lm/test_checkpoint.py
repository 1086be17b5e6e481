from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import create_layer, layer_names
from softmax_bench.lm import (
    ENCODERS,
    Checkpoint,
    LanguageModel,
    Optimizer,
    Progress,
    TrainingState,
    code_version,
    make_optimizer,
    make_streams,
    train,
)
from softmax_bench.lm.checkpoint import memory

IDENTITY = {"trial": "a", "version": "1"}
TEXT = make_streams(np.random.default_rng(0).integers(30, size=150), 4, 0)
VALID = make_streams(np.arange(50) % 30, 2, 0)
TOKENS = 320
"""To predict, in 17 steps: more than two passes over the text, whose last windows are short."""

LAYERS = [
    *layer_names(),
    "midx(refresh=6, codewords=3, num_samples=4)",
    "kernel(refresh=6, dimensions=3, num_samples=4)",
    "rff(refresh=6, features=5, num_samples=4)",
    "nce(log_z='estimated')",
    "nce(log_z='learned')",
    "nce(shared=False, num_samples=3)",
    "sampled(num_samples=5, replacement=False)",
    "partial_fc(num_samples=7)",
    "hierarchical(tree='balanced')",
]


class _KilledError(Exception):
    pass


class OftenCheckpoint(Checkpoint):
    """Due at every second step."""

    steps = 0

    def due(self) -> bool:
        self.steps += 1
        return self.steps % 2 == 0


def fresh(
    spec: str, encoder: str, optimizer: str, **options: Any
) -> tuple[LanguageModel, Optimizer]:
    counts = np.random.default_rng(1).integers(1, 90, 30)
    layer = create_layer(spec, 6, 30, counts, sparse=True)
    options = {"embedding_size": 6, "num_layers": 1, "dropout": 0.2} | options
    model = LanguageModel(layer, encoder=encoder, **options)
    return model, make_optimizer(optimizer, model.parameters(), 0.02)


def run(
    model: LanguageModel,
    optimizer: Optimizer,
    checkpoint: Checkpoint | None = None,
    killed_at: int | None = None,
) -> list[Progress]:
    steps = 0

    def on_step(tokens: int) -> None:
        nonlocal steps
        steps += 1
        if steps == killed_at:
            raise _KilledError

    return train(
        model, optimizer, TEXT, VALID, window=5, valid_window=9, max_tokens=TOKENS,
        clip_norm=0.7, on_step=on_step, checkpoint=checkpoint,
    )  # fmt: skip


def timeless(history: list[Progress]) -> list[tuple[int, float, object]]:
    return [(point.tokens, point.train_loss, point.valid) for point in history]


def check_interruptions(tmp_path: Path, make: Callable[[], tuple[Any, Any]]) -> None:
    torch.manual_seed(5)
    model, optimizer = make()
    uninterrupted = run(model, optimizer)
    torch.manual_seed(5)
    for kill in (6, 4, 8, None):
        other_model, other_optimizer = make()
        checkpoint = OftenCheckpoint(tmp_path / "trial.safetensors", IDENTITY)
        try:
            history = run(other_model, other_optimizer, checkpoint, kill)
        except _KilledError:
            torch.manual_seed(kill)  # another process: nothing is alike by chance
    assert checkpoint.resumed == 3
    assert timeless(history) == timeless(uninterrupted)
    assert len(history) == 6
    for (name, value), other in zip(
        memory(model).items(), memory(other_model).values(), strict=True
    ):
        assert torch.equal(value, other), name
    for value, other in zip(
        optimizer.state_tensors(), other_optimizer.state_tensors(), strict=True
    ):
        assert torch.equal(value, other)


@pytest.mark.parametrize(
    "encoder", ["lstm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("nplm", "gru"))]
)
@pytest.mark.parametrize("spec", LAYERS)
def test_every_layer_goes_on_bit_for_bit(tmp_path: Path, spec: str, encoder: str) -> None:
    check_interruptions(tmp_path, lambda: fresh(spec, encoder, "adagrad"))


@pytest.mark.parametrize(("encoder", "optimizer"), list(zip(ENCODERS, cycle(["sgd", "adam"]))))
def test_every_encoder_and_optimizer_goes_on_bit_for_bit(
    tmp_path: Path, encoder: str, optimizer: str
) -> None:
    layers = 1 if encoder == "lbl" else 2
    check_interruptions(tmp_path, lambda: fresh("sampled", encoder, optimizer, num_layers=layers))


def test_a_tied_model_goes_on_bit_for_bit(tmp_path: Path) -> None:
    check_interruptions(tmp_path, lambda: fresh("nce", "gru", "adam", tied=True))


def test_what_is_remembered_elsewhere_is_missed(tmp_path: Path) -> None:
    """The check of the tests above can fail."""

    class Counting(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.calls = 0

        def forward(self, vectors: Tensor, state: Any) -> Any:
            self.calls += 1
            return self.inner(vectors / self.calls, state)

    def make() -> tuple[LanguageModel, Optimizer]:
        model, optimizer = fresh("full", "gru", "sgd")
        model.encoder = Counting(model.encoder)
        return model, optimizer

    with pytest.raises(AssertionError):
        check_interruptions(tmp_path, make)


def test_training_that_is_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trial.safetensors"
    model, optimizer = fresh("full", "gru", "sgd")
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    history = run(model, optimizer, Checkpoint(path, IDENTITY))
    told: list[int] = []
    again = train(
        *fresh("full", "gru", "sgd"), TEXT, VALID, window=5, valid_window=9,
        max_tokens=history[-1].tokens, clip_norm=0.7, on_step=told.append,
        checkpoint=Checkpoint(path, IDENTITY),
    )  # fmt: skip
    assert again == history
    assert told == [history[-1].tokens]


def saved(path: Path) -> tuple[LanguageModel, Optimizer, bytes]:
    model, optimizer = fresh("sampled", "gru", "adam")
    run(model, optimizer)
    Checkpoint(path, IDENTITY).save(model, optimizer, TrainingState(tokens=7))
    return model, optimizer, path.read_bytes()


def check_set_aside(path: Path, caplog: pytest.LogCaptureFixture, why: str, **changed: str) -> None:
    """Nothing is taken from the file."""
    content = path.read_bytes()
    model, optimizer = fresh("sampled", "gru", "adam")
    before = {name: value.clone() for name, value in memory(model).items()}
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        state = Checkpoint(path, IDENTITY | changed).load(model, optimizer)
    assert state == TrainingState()
    assert all(torch.equal(value, before[name]) for name, value in memory(model).items())
    assert not list(optimizer.state_tensors())
    assert why in caplog.text
    aside = path.with_name(f"{path.name}.set-aside")
    assert aside.name in caplog.text
    assert aside.read_bytes() == content
    assert not path.exists()


def test_damage_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "trial.safetensors"
    _, _, whole = saved(path)
    draw = random.Random(0)
    damaged = [b"", whole[:7], whole[:-1], whole + b"x", bytes(len(whole)), b"\x80\x04K\x01."]
    for place in [*range(8, 12), *draw.sample(range(len(whole)), 40)]:
        damaged.append(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        check_set_aside(path, caplog, f"checkpoint {path} ")


def test_another_runs_checkpoint_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "trial.safetensors"
    _, _, content = saved(path)
    check_set_aside(path, caplog, "was made with another version;", version="2")
    path.write_bytes(content)
    check_set_aside(path, caplog, "another trial and another version", trial="b", version="2")


def test_a_full_disk_stops_and_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trial.safetensors"
    model, optimizer, before = saved(path)

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(SoftmaxBenchError, match=r"cannot be written: .*No space left"):
        Checkpoint(path, IDENTITY).save(model, optimizer, TrainingState(tokens=8))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_private_and_leftovers_removed(tmp_path: Path) -> None:
    path = tmp_path / "trial.safetensors"
    model, optimizer, _ = saved(path)
    assert path.stat().st_mode & 0o077 == 0
    killed = tmp_path / f".{path.name}.unfinished-x"
    of_another = tmp_path / ".other.safetensors.unfinished-x"
    for folder in (killed, of_another):
        folder.mkdir()
        (folder / path.name).write_bytes(b"half")
    assert Checkpoint(path, IDENTITY).load(model, optimizer).tokens == 7
    assert sorted(tmp_path.iterdir()) == [of_another, path]


def test_checkpoints_take_a_small_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    checkpoint = Checkpoint(tmp_path / "trial", IDENTITY, every=30.0)
    model, optimizer = fresh("full", "gru", "sgd")

    def fsync_of(seconds: float) -> Callable[[int], None]:
        def fsync(handle: int) -> None:
            nonlocal now
            now += seconds / 2  # the file, and its name in the folder

        return fsync

    for cost, wait in ((0.1, 30.0), (6.0, 120.0)):
        assert not checkpoint.due()
        now += 30.0 if cost < 1 else 31.0
        assert checkpoint.due()
        monkeypatch.setattr(os, "fsync", fsync_of(cost))
        checkpoint.save(model, optimizer, TrainingState())
        begin = now
        now = begin + wait - 0.01
        assert not checkpoint.due()
        now = begin + wait + 0.01
        assert checkpoint.due()
        now = begin


def test_the_version_is_that_of_all_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "stranger.py"
    source.write_text("class Layer: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    layer = __import__("stranger").Layer
    first = code_version(layer)
    assert code_version(layer) == first != code_version()
    source.write_text("class Layer: pass  # changed\n")
    assert code_version(layer) != first
    assert code_version(int) == code_version()  # a built-in type has no source
