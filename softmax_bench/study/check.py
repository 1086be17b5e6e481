"""Errors in a study that can be found before any text is read."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from softmax_bench.errors import SoftmaxBenchError, nearest
from softmax_bench.layers import create_layer, parse_spec
from softmax_bench.lm import SCHEDULES, check_optimizer, make_encoder
from softmax_bench.measure import zipf_counts
from softmax_bench.measure.memory import OPTIMIZER_STATES
from softmax_bench.study.study import Study

_MOST_CHECKED = 100_000_000
"""Most classes for which layers are created to check them; counts take memory too."""

_MOST_BY_DEFAULT = 100_000
"""Likewise where a layer has no options that could be wrong: a tree of millions takes minutes."""


@dataclass(frozen=True)
class Mistake:
    """An error in a study."""

    key: str
    """The study key that is wrong."""
    message: str
    value: Any = None
    """Which of several values is wrong."""


def mistakes(study: Study) -> Iterator[Mistake]:
    """All errors of a study whose values have the right types."""
    for key in ("corpora", "vocab_sizes", "encoders", "seeds", "max_tokens", "learning_rates"):
        yield from _list_mistakes(key, getattr(study, key))
    start = study.accumulator_start
    yield from common_mistakes(study.layers, study.optimizer, study.device, start)
    if study.schedule not in SCHEDULES:
        yield Mistake(
            "schedule",
            f"unknown schedule {study.schedule!r}{nearest(study.schedule, SCHEDULES)}",
        )
    yield from _option_mistakes(study)
    yield from _encoder_mistakes(study)
    embedding_size = study.embedding_size or study.hidden_size
    if study.tied and embedding_size != study.hidden_size:
        yield Mistake(
            "embedding_size",
            "a tied embedding needs the hidden size: set both to the same number, not "
            f"{embedding_size} and {study.hidden_size}",
        )


def common_mistakes(
    layers: Sequence[str], optimizer: str, device: str, initial_accumulator_value: float = 0.0
) -> Iterator[Mistake]:
    """Errors common to training and timing."""
    yield from _layer_mistakes(layers)
    try:
        check_optimizer(optimizer, initial_accumulator_value)
    except SoftmaxBenchError as error:
        yield Mistake("optimizer", str(error))
    if device not in ("cpu", "cuda"):
        yield Mistake("device", f"unknown device {device!r}: choose cpu or cuda")
    elif device == "cuda" and not torch.cuda.is_available():
        yield Mistake("device", "no CUDA device found: choose cpu")


def _layer_mistakes(layers: Sequence[str]) -> Iterator[Mistake]:
    if not layers:
        yield Mistake("layers", "layers must not be empty")
    checked: list[tuple[Any, str]] = []
    for spec in layers:
        try:
            kind, options = parse_spec(spec)
        except SoftmaxBenchError as error:
            yield Mistake("layers", str(error), spec)
            continue
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(kind).parameters.items()
            if parameter.default is not parameter.empty
        }
        configuration = kind, defaults | options
        earlier = next((first for one, first in checked if one == configuration), None)
        if earlier is not None:
            spelled = "" if spec == earlier else f", which is {earlier!r} in another spelling"
            yield Mistake("layers", f"{spec!r}{spelled}: listed twice", spec)
        checked.append((configuration, spec))


def class_limit_mistake(study: Study, *, word_vectors: bool = True) -> str:
    """Why the parameters alone do not fit into memory; empty if they do.

    Args:
        study: The study.
        word_vectors: Whether the models have a word vector for each class.
    """
    limit = study.memory_limit
    most = psutil.virtual_memory().total if limit is None else limit * 1e9
    row = study.hidden_size
    if word_vectors and not study.tied:
        row += study.embedding_size or study.hidden_size
    copies = 1 + OPTIMIZER_STATES[study.optimizer]
    for size in study.vocab_sizes:
        needed = 0 if size == "all" else 4 * copies * row * size
        if needed > most:
            has = "this machine has" if limit is None else "memory_limit is"
            return (
                f"{size:,} classes take {needed / 1e9:,.0f} GB for parameters and optimiser alone, "
                f"and {has} {most / 1e9:,.0f} GB: choose fewer classes or a smaller "
                "hidden_size, or, in a study, set memory_limit to the memory of the machines that "
                "run the trials"
            )
    return ""


def sample_notes(layers: Sequence[str], vocab_size: int) -> Iterator[str]:
    """Layers that would draw more samples than there are classes, one sentence each."""
    for spec in layers:
        kind, options = parse_spec(spec)
        parameter = inspect.signature(kind).parameters.get("num_samples")
        samples = options.get("num_samples", parameter.default if parameter else 0)
        if samples > vocab_size:
            yield f"{spec} draws {samples:,} samples of {vocab_size:,} classes, nearly all of them"


def _list_mistakes(key: str, values: Sequence[Any]) -> Iterator[Mistake]:
    if not values:
        yield Mistake(key, f"{key} must not be empty")
    for number, value in enumerate(values):
        if value in values[:number]:
            yield Mistake(key, f"{value!r} is listed twice", value)


def _option_mistakes(study: Study) -> Iterator[Mistake]:
    """Option values that a layer rejects at the largest vocabulary."""
    sizes = [size for size in study.vocab_sizes if size != "all" and size <= _MOST_CHECKED]
    for spec in study.layers if sizes else ():
        try:
            _, options = parse_spec(spec)
        except SoftmaxBenchError:
            continue  # has been reported already
        size = max(sizes) if options else min(max(sizes), _MOST_BY_DEFAULT)
        try:
            create_layer(spec, study.hidden_size, size, zipf_counts(size), device="meta")
        except SoftmaxBenchError as error:
            yield Mistake("layers", f"{spec}: {error}", spec)
        except (NotImplementedError, RuntimeError):
            continue  # a foreign layer that cannot be created from shapes alone


def _encoder_mistakes(study: Study) -> Iterator[Mistake]:
    for name in study.encoders:
        try:
            with torch.device("meta"):  # only sizes are checked
                make_encoder(
                    name,
                    study.embedding_size or study.hidden_size,
                    study.hidden_size,
                    study.num_layers,
                    study.dropout,
                )
        except SoftmaxBenchError as error:
            yield Mistake("encoders", str(error), name)
