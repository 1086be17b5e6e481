"""Mistakes that can be seen in a study before any text is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from softmax_bench.errors import SoftmaxBenchError, nearest
from softmax_bench.layers import create_layer, parse_spec
from softmax_bench.lm import ENCODERS, check_optimizer, make_encoder
from softmax_bench.measure import zipf_counts
from softmax_bench.study.study import Study


@dataclass(frozen=True)
class Mistake:
    """Something that cannot be."""

    key: str
    """Of the study."""
    message: str
    value: Any = None
    """The one of several that is wrong."""


def mistakes(study: Study) -> Iterator[Mistake]:
    """Everything that is wrong with a study whose values have the right types."""
    for key in ("corpora", "vocab_sizes", "encoders", "seeds", "max_tokens", "learning_rates"):
        yield from _list_mistakes(key, getattr(study, key))
    start = study.initial_accumulator_value
    yield from common_mistakes(study.layers, study.optimizer, study.device, start)
    yield from _option_mistakes(study)
    yield from _encoder_mistakes(study)
    embedding_size = study.embedding_size or study.hidden_size
    if study.tied and embedding_size != study.hidden_size:
        yield Mistake(
            "embedding_size",
            "a tied embedding has the hidden size: set both to the same number, not "
            f"{embedding_size} and {study.hidden_size}",
        )


def common_mistakes(
    layers: Sequence[str], optimizer: str, device: str, initial_accumulator_value: float = 0.0
) -> Iterator[Mistake]:
    """What training and timing have in common."""
    yield from _list_mistakes("layers", layers)
    for spec in layers:
        try:
            parse_spec(spec)
        except SoftmaxBenchError as error:
            yield Mistake("layers", str(error), spec)
    try:
        check_optimizer(optimizer, initial_accumulator_value)
    except SoftmaxBenchError as error:
        yield Mistake("optimizer", str(error))
    if device not in ("cpu", "cuda"):
        yield Mistake("device", f"unknown device {device!r}: choose cpu or cuda")
    elif device == "cuda" and not torch.cuda.is_available():
        yield Mistake("device", "no CUDA device is to be seen here: choose cpu")


def _list_mistakes(key: str, values: Sequence[Any]) -> Iterator[Mistake]:
    if not values:
        yield Mistake(key, f"name at least one of {key}")
    for number, value in enumerate(values):
        if value in values[:number]:
            yield Mistake(key, f"{value!r}: none may be named twice", value)


def _option_mistakes(study: Study) -> Iterator[Mistake]:
    """Values of options that a layer does not take, at the largest vocabulary."""
    sizes = [size for size in study.vocab_sizes if size != "all"]
    for spec in study.layers if sizes else ():
        try:
            parse_spec(spec)
        except SoftmaxBenchError:
            continue  # is told already
        try:
            create_layer(
                spec, study.hidden_size, max(sizes), zipf_counts(max(sizes)), device="meta"
            )
        except SoftmaxBenchError as error:
            yield Mistake("layers", f"{spec}: {error}", spec)
        except (NotImplementedError, RuntimeError):
            continue  # a layer of somebody else that cannot be made of shapes alone


def _encoder_mistakes(study: Study) -> Iterator[Mistake]:
    for name in study.encoders:
        if name not in ENCODERS:
            yield Mistake("encoders", f"unknown encoder {name!r}{nearest(name, ENCODERS)}", name)
            continue
        try:
            with torch.device("meta"):  # sizes are checked, nothing is made
                make_encoder(
                    name,
                    study.embedding_size or study.hidden_size,
                    study.hidden_size,
                    study.num_layers,
                    study.dropout,
                )
        except SoftmaxBenchError as error:
            yield Mistake("encoders", str(error), name)
