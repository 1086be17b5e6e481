"""Timings of the layers at a few small sizes on this machine, kept for next time."""

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
    (1000, 192, 400), (128_000, 64, 100), (2000, 64, 64), (16_000, 256, 64), (500, 64, 2000),
    (500, 512, 64), (16_000, 128, 1500), (32_000, 384, 300), (8000, 64, 400), (64_000, 128, 400),
    (2000, 384, 800), (128_000, 128, 700), (32_000, 64, 1000), (4000, 192, 1000), (8000, 512, 200),
    (64_000, 192, 1000),
)  # fmt: skip
"""V, H and N. Each covers its range independently of the others, and each size is as far as
possible from those before it, since a slow or busy machine is measured only at the first few.
"""
MOST_SECONDS = 30.0
"""No further size is started after this time, so that the first advice takes about a minute."""
LEAST_SIZES = 4
"""Fewer sizes are too few to predict from, however long they take."""
MAX_FLOPS = 4e10
"""Steps with more operations are not timed: large products dominate them, which smaller steps
measure.
"""
MAX_SECONDS = 0.5
"""Layers whose first step took longer are not timed either."""
MAX_BYTES = 2**30
"""Memory limit for the layers timed together, with gradients and the optimiser's state."""
SECONDS_A_CELL = 0.1


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions for which a calibration holds."""

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
    """The encoder whose step precedes each timed one."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A measured step of one layer at one size."""

    workload: Workload
    seconds: float
    """Median of a whole step: forward, backward, clipping and optimiser."""
    low: float
    high: float
    peak_bytes: int
    """Peak bytes in forward and backward beyond the parameters, including gradients."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Everything measured in one setting."""

    setting: Setting
    layers: list[str]
    """The layers that were tried; a layer that is slow everywhere has no cells."""
    cells: list[Cell]
    disturbed: str = ""
    """What disturbed the timings; empty if nothing did. A disturbed calibration is repeated once
    the machine is quiet.
    """


def this_setting(*, threads: int, device: str, dtype: str, optimizer: str) -> Setting:
    """The setting of this machine and these versions."""
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
    """The file of a setting; different machines and versions have different files."""
    text = msgspec.json.encode(setting, order="sorted")
    return folder / f"{hashlib.sha256(text).hexdigest()[:16]}.json"


def load(folder: Path, setting: Setting) -> Calibration:
    """The calibration stored for a setting, without cells if there is none.

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
            f"{path} is not a calibration ({error}): delete it to have it recreated"
        ) from error


def save(folder: Path, calibration: Calibration) -> Path:
    """Write a calibration atomically."""
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
    """A calibration that covers these layers: the stored one, completed if layers are missing.

    A disturbed calibration is used until the machine is quiet.

    Args:
        specs: The layers.
        setting: The conditions it should hold for.
        folder: Where calibrations are kept.
        anew: Whether to repeat existing measurements.
        on_share: Called after each layer and size with the share that is done.

    Raises:
        SoftmaxBenchError: The file is damaged, or a layer cannot be created.
    """
    stored = load(folder, setting)
    if stored.disturbed and is_calm():
        stored = Calibration(setting=setting, layers=[], cells=[])
    missing = [spec for spec in specs if anew or spec not in stored.layers]
    if not missing:
        return stored
    done = itertools.count(1)
    total = len(missing) * len(SIZES)
    begin = time.monotonic()

    def tell() -> None:
        on_share(max(next(done) / total, min(1.0, (time.monotonic() - begin) / MOST_SECONDS)))

    cells: list[Cell] = []
    with watch_machine() as disturbances:
        for number, size in enumerate(SIZES):
            if number >= LEAST_SIZES and time.monotonic() - begin > MOST_SECONDS:
                break
            cells += measure(missing, setting, sizes=[size], seconds=SECONDS_A_CELL, on_cell=tell)
    kept = [cell for cell in stored.cells if cell.workload.layer not in missing]
    before = stored.disturbed if kept else ""
    complete = Calibration(
        setting=setting,
        layers=sorted({*stored.layers, *missing}),
        cells=kept + cells,
        disturbed=", ".join(disturbances[0].reasons) if disturbances[0].by_others else before,
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
    """Time the step of each layer at each size, alternating between the layers of one size.

    Args:
        specs: The layers.
        setting: The conditions common to all of them.
        sizes: V, H and N of each size.
        counts: How often each class occurs, of shape (V,); Zipf's law by default.
        seconds: Time for each layer at each size.
        max_flops: Layers whose step needs more operations are left out at that size.
        max_seconds: Layers whose first step takes longer are left out at that size.
        on_cell: Called after each layer and size, whether timed or left out.
    """
    torch.set_num_threads(setting.threads)
    cells = []
    for size in sizes:
        steps = _steps(specs, size, setting, counts, max_flops, max_seconds)
        for group in _groups(steps, on_cell):
            timed = interleave(
                group, budget_seconds=seconds * len(group), min_repetitions=2, max_repetitions=50
            )
            for spec, step in group.items():
                timing = timed[spec]["step"]
                cells.append(
                    Cell(
                        workload=of_layer(spec, step.layer, size[2]),
                        seconds=timing.median,
                        low=timing.low,
                        high=timing.high,
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
    """Each layer's step, created on demand; None if it takes too long."""
    vocab_size, hidden_size, num_tokens = size
    class_counts = zipf_counts(vocab_size) if counts is None else as_counts(counts, vocab_size)
    target = draw_targets(num_tokens, class_counts, seed=0)
    for spec in specs:
        torch.manual_seed(0)
        layer = create_layer(
            spec, hidden_size, vocab_size, class_counts,
            device=setting.device, dtype=getattr(torch, setting.dtype), sparse=True,
        )  # fmt: skip
        step = LayerStep(layer, num_tokens, optimizer=setting.optimizer, target=target)
        fits = layer.cost(num_tokens).flops <= max_flops and step.take()["step"] <= max_seconds
        yield spec, step if fits else None


def _groups(
    steps: Iterable[tuple[str, LayerStep | None]], skipped: Callable[[], None]
) -> Iterator[Mapping[str, LayerStep]]:
    """Layers that are there at once, as many as :data:`MAX_BYTES` allow."""
    group: dict[str, LayerStep] = {}
    group_bytes = 0
    for spec, step in steps:
        if step is None:
            skipped()
            continue
        group[spec] = step
        group_bytes += 3 * sum(parameter.nbytes for parameter in step.layer.parameters())
        if group_bytes > MAX_BYTES:
            yield group
            group, group_bytes = {}, 0
    if group:
        yield group
