"""What to run: from a person's choices to trials, all checked before the first one starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from softmax_bench.corpora import Corpus, load_corpus
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import layer_names, parse_spec
from softmax_bench.lm import check_optimizer, make_encoder
from softmax_bench.study.trial import NgramTrial, SpeedTrial, TrainTrial


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What to compare, and under which equal conditions."""

    corpus: str
    vocab_sizes: Sequence[int | None]
    layers: Sequence[str]
    learning_rates: Sequence[float]
    encoder: str
    embedding_size: int
    hidden_size: int
    num_layers: int
    dropout: float
    tied: bool
    optimizer: str
    clip_norm: float
    batch_size: int
    bptt: int
    max_tokens: int
    tune_tokens: int
    """Budget of each learning rate where there are several; the best then gets ``max_tokens``."""
    seed: int
    num_seeds: int
    """Models trained with the chosen learning rate, with the seeds from ``seed`` on."""
    threads: int
    device: str


def check(choices: Choices) -> None:
    """Look for mistakes that can be seen before any text is read.

    Raises:
        SoftmaxBenchError: A choice is not possible.
    """
    check_layers(choices.layers, choices.optimizer, choices.device)
    for name in (
        "hidden_size", "embedding_size", "num_layers", "batch_size", "bptt", "max_tokens",
        "tune_tokens", "num_seeds", "threads",
    ):  # fmt: skip
        if getattr(choices, name) < 1:
            raise SoftmaxBenchError(f"{name} must be at least 1, not {getattr(choices, name)}")
    if not 0 <= choices.dropout < 1:
        raise SoftmaxBenchError(f"dropout must be in [0, 1), not {choices.dropout}")
    with torch.device("meta"):  # sizes are checked, nothing is made
        make_encoder(
            choices.encoder,
            choices.embedding_size,
            choices.hidden_size,
            choices.num_layers,
            choices.dropout,
        )
    for rate in choices.learning_rates:
        if not rate > 0:
            raise SoftmaxBenchError(f"a learning rate must be positive, not {rate}")
    if choices.tied and choices.embedding_size != choices.hidden_size:
        raise SoftmaxBenchError(
            "a tied embedding has the hidden size: set both to the same number, not "
            f"{choices.embedding_size} and {choices.hidden_size}"
        )


def check_layers(layers: Sequence[str], optimizer: str, device: str) -> None:
    """Look at what training and timing have in common.

    Raises:
        SoftmaxBenchError: A layer, the optimiser or the device is not there.
    """
    for spec in layers:
        parse_spec(spec)
    if not layers or len(set(layers)) < len(layers):
        raise SoftmaxBenchError("name at least one layer; none may be named twice")
    check_optimizer(optimizer)
    if device not in ("cpu", "cuda"):
        raise SoftmaxBenchError(f"unknown device {device!r}: choose cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise SoftmaxBenchError("no CUDA device is to be seen here: choose cpu")


def load_corpora(choices: Choices) -> list[Corpus]:
    """The text at every vocabulary size.

    Raises:
        SoftmaxBenchError: There is no such text, or it does not offer such a vocabulary.
    """
    return [
        load_corpus(choices.corpus, vocab_size=size, seed=choices.seed)
        for size in choices.vocab_sizes
    ]


def train_trial(
    choices: Choices, corpus: Corpus, layer: str, rate: float, tokens: int, seed: int
) -> TrainTrial:
    """One model to train."""
    return TrainTrial(
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        vocab_size=corpus.vocab_size,
        layer=layer,
        encoder=choices.encoder,
        embedding_size=choices.embedding_size,
        hidden_size=choices.hidden_size,
        num_layers=choices.num_layers,
        dropout=choices.dropout,
        tied=choices.tied,
        optimizer=choices.optimizer,
        learning_rate=rate,
        clip_norm=choices.clip_norm,
        batch_size=choices.batch_size,
        bptt=choices.bptt,
        max_tokens=tokens,
        seed=seed,
        threads=choices.threads,
        device=choices.device,
        dtype="float32",
    )


def ngram_trial(corpus: Corpus) -> NgramTrial:
    """The 5-gram model, as in the literature."""
    return NgramTrial(
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        vocab_size=corpus.vocab_size,
        order=5,
    )


def speed_trials(choices: Choices, vocab_size: int) -> list[SpeedTrial]:
    """The layers to time against each other at one vocabulary size."""
    return [
        SpeedTrial(
            layer=layer,
            vocab_size=vocab_size,
            hidden_size=choices.hidden_size,
            num_tokens=choices.batch_size * choices.bptt,
            optimizer=choices.optimizer,
            clip_norm=choices.clip_norm,
            seed=choices.seed,
            threads=choices.threads,
            device=choices.device,
            dtype="float32",
        )
        for layer in choices.layers
    ]


_QUOTED_OR_ONE = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|.""", re.DOTALL)


def split_specs(text: str) -> list[str]:
    """Layers in a comma-separated list, or every layer there is for ``"all"``.

    Commas inside parentheses belong to a layer's options.
    """
    if text.strip() == "all":
        return layer_names()
    specs, depth = [""], 0
    for part in _QUOTED_OR_ONE.findall(text):
        depth += (part == "(") - (part == ")")
        if part == "," and depth == 0:
            specs.append("")
        else:
            specs[-1] += part
    return [spec.strip() for spec in specs if spec.strip()]
