"""Steps of the layers timed at a few small sizes: what this machine is like, kept for next time."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import torch

from softmax_bench.advise.workload import Workload, of_layer
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.files import write_file
from softmax_bench.layers import create_layer
from softmax_bench.layers.options import Counts, as_counts
from softmax_bench.measure import (
    LayerStep,
    describe_environment,
    draw_targets,
    interleave,
    watch_machine,
    zipf_counts,
)
from softmax_bench.study.jobs.calm import is_calm

SIZES = (
    (1000, 192, 400), (128_000, 64, 400), (2000, 64, 64), (16_000, 256, 64), (500, 64, 2000),
    (500, 512, 64), (16_000, 128, 1500), (32_000, 384, 300), (8000, 64, 400), (64_000, 128, 100),
    (2000, 384, 800), (128_000, 128, 700), (32_000, 64, 1000), (4000, 192, 1000), (8000, 512, 200),
    (64_000, 192, 1000),
)  # fmt: skip
"""V, H and N: each over its range whatever the others are. Each size is as far as can be from those
before it: a slow or busy machine is measured at the first of them only."""
MOST_SECONDS = 35.0
"""After which no further size is begun: advice is to be had within a minute."""
LEAST_SIZES = 5
"""Fewer say too little, however long they take."""
MAX_FLOPS = 4e10
"""A step with more is not timed: its time is that of large products, which smaller ones tell."""
MAX_SECONDS = 1.0
"""Nor is one that took longer at its first try."""
MAX_BYTES = 2**30
"""Of the layers that take turns, with gradients and the optimiser's state."""
SECONDS_A_CELL = 0.1


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What a calibration holds for."""

    processor: str
    cores: int
    accelerator: str | None
    blas: str
    versions: dict[str, str]
    threads: int
    device: str
    dtype: str
    optimizer: str
    encoder: str = "lstm"
    """Whose step comes before each timed one."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's step at one size, measured."""

    workload: Workload
    seconds: float
    """Median of a whole step: forward, backward, clipping and optimiser."""
    low: float
    high: float
    peak_bytes: int
    """Most held at once in forward and backward beyond the parameters, gradients included."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Everything measured in one setting."""

    setting: Setting
    layers: list[str]
    """Those that were tried; one that is slow everywhere has no cells."""
    cells: list[Cell]
    disturbed: str = ""
    """What others did on the machine meanwhile, in words; empty where they did nothing. It is made
    again when the machine is calm."""


def this_setting(*, threads: int, device: str, dtype: str, optimizer: str) -> Setting:
    """This machine, with these versions."""
    described = describe_environment()
    here = {name: described[name] for name in ("processor", "cores", "accelerator", "blas")}
    return Setting(
        **here,
        versions=described["versions"],
        threads=threads,
        device=device,
        dtype=dtype,
        optimizer=optimizer,
    )


def calibration_path(folder: Path, setting: Setting) -> Path:
    """The file of a setting: machines and versions do not share one."""
    text = msgspec.json.encode(setting, order="sorted")
    return folder / f"{hashlib.sha256(text).hexdigest()[:16]}.json"


def load(folder: Path, setting: Setting) -> Calibration:
    """What is known in a setting; without cells where nothing is.

    Raises:
        SoftmaxBenchError: The file is damaged.
    """
    path = calibration_path(folder, setting)
    if not path.exists():
        return Calibration(setting=setting, layers=[], cells=[])
    try:
        return msgspec.json.decode(path.read_bytes(), type=Calibration)
    except msgspec.DecodeError as error:
        raise SoftmaxBenchError(
            f"{path} is no calibration ({error}): delete it, and it is made anew"
        ) from error


def save(folder: Path, calibration: Calibration) -> Path:
    """Write a calibration whole or not at all."""
    path = calibration_path(folder, calibration.setting)
    text = msgspec.json.format(msgspec.json.encode(calibration), indent=1) + b"\n"
    return write_file(path, text)


def calibrated(
    specs: Sequence[str],
    setting: Setting,
    folder: Path,
    *,
    anew: bool = False,
    on_share: Callable[[float], None] = lambda share: None,
) -> Calibration:
    """A calibration that knows these layers: read where it is kept, and completed where it is not.

    One that was disturbed serves until the machine is calm.

    Args:
        specs: The layers.
        setting: What it is to hold for.
        folder: Where calibrations are kept.
        anew: Whether to measure again what is known.
        on_share: Told after each layer and size which share is done.

    Raises:
        SoftmaxBenchError: The file is damaged, or a layer cannot be made.
    """
    known = load(folder, setting)
    if known.disturbed and is_calm():
        known = Calibration(setting=setting, layers=[], cells=[])
    missing = [spec for spec in specs if anew or spec not in known.layers]
    if not missing:
        return known
    done = itertools.count(1)
    total = len(missing) * len(SIZES)
    begin = time.monotonic()

    def tell() -> None:
        on_share(max(next(done) / total, min(1.0, (time.monotonic() - begin) / MOST_SECONDS)))

    cells: list[Cell] = []
    with watch_machine() as seen:
        for number, size in enumerate(SIZES):
            if number >= LEAST_SIZES and time.monotonic() - begin > MOST_SECONDS:
                break
            cells += measure(missing, setting, sizes=[size], seconds=SECONDS_A_CELL, on_cell=tell)
    kept = [cell for cell in known.cells if cell.workload.layer not in missing]
    before = known.disturbed if kept else ""
    complete = Calibration(
        setting=setting,
        layers=sorted({*known.layers, *missing}),
        cells=kept + cells,
        disturbed=", ".join(seen[0].reasons) if seen[0].by_others else before,
    )
    save(folder, complete)
    return complete


def measure(
    specs: Sequence[str],
    setting: Setting,
    *,
    sizes: Sequence[tuple[int, int, int]],
    counts: Counts | None = None,
    seconds: float,
    max_flops: float = MAX_FLOPS,
    max_seconds: float = MAX_SECONDS,
    on_cell: Callable[[], None] = lambda: None,
) -> list[Cell]:
    """Time the step of each layer at each size, layers of one size in turns.

    Args:
        specs: The layers.
        setting: What holds for all of them.
        sizes: V, H and N of each size.
        counts: (V,) how often each class occurs; by Zipf's law where they are not given.
        seconds: For each layer at each size.
        max_flops: Of a step; layers with more are left out at that size.
        max_seconds: Of a layer's first step; slower ones are left out at that size.
        on_cell: Told after each layer and size, left out or not.
    """
    torch.set_num_threads(setting.threads)
    cells = []
    for size in sizes:
        steps = _steps(specs, size, setting, counts, max_flops, max_seconds)
        for group in _groups(steps, on_cell):
            timed = interleave(
                group, budget_seconds=seconds * len(group), min_repetitions=3, max_repetitions=50
            )
            for spec, step in group.items():
                whole = timed[spec]["step"]
                cells.append(
                    Cell(
                        workload=of_layer(spec, step.layer, size[2]),
                        seconds=whole.median,
                        low=whole.low,
                        high=whole.high,
                        peak_bytes=step.memory().peak,
                    )
                )
                on_cell()
    return cells


def _steps(
    specs: Sequence[str],
    size: tuple[int, int, int],
    setting: Setting,
    counts: Counts | None,
    max_flops: float,
    max_seconds: float,
) -> Iterator[tuple[str, LayerStep | None]]:
    """Each layer's step, made when it is asked for; None where it takes too long."""
    vocab_size, hidden_size, num_tokens = size
    given = zipf_counts(vocab_size) if counts is None else as_counts(counts, vocab_size)
    target = draw_targets(num_tokens, given, seed=0)
    for spec in specs:
        torch.manual_seed(0)
        layer = create_layer(
            spec, hidden_size, vocab_size, given,
            device=setting.device, dtype=getattr(torch, setting.dtype), sparse=True,
        )  # fmt: skip
        step = LayerStep(layer, num_tokens, optimizer=setting.optimizer, target=target)
        fits = layer.cost(num_tokens).flops <= max_flops and step()["step"] <= max_seconds
        yield spec, step if fits else None


def _groups(
    steps: Iterable[tuple[str, LayerStep | None]], skipped: Callable[[], None]
) -> Iterator[Mapping[str, LayerStep]]:
    """Layers that are there at once, as many as :data:`MAX_BYTES` allow."""
    group: dict[str, LayerStep] = {}
    held = 0
    for spec, step in steps:
        if step is None:
            skipped()
            continue
        group[spec] = step
        held += 3 * sum(parameter.nbytes for parameter in step.layer.parameters())
        if held > MAX_BYTES:
            yield group
            group, held = {}, 0
    if group:
        yield group
