"""The steps of a study: its grid, and for each layer the learning rate that it does best with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from softmax_bench.study.job import Limits, NgramJob, Text, TrainJob
from softmax_bench.study.plan import Done, Failed, Plan, State, Step, state_of, time_steps
from softmax_bench.study.record import TrainRecord
from softmax_bench.study.study import Study
from softmax_bench.study.texts import KnownText
from softmax_bench.study.trial import NgramTrial, SpeedTrial, TrainTrial, trial_id

NGRAM_ORDER = 5
"""As in the literature."""
NGRAM_MOST_TOKENS = 25_000_000
"""The model of a longer text is left out: it takes about 200 bytes a token."""


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sources(study: Study, data_dir: Path | None = None) -> list[Text]:
    """The texts of a study, at each vocabulary size."""
    folder = None if data_dir is None else str(data_dir)
    return [
        Text(
            spec=spec,
            vocab_size=None if size == "all" else size,
            seed=study.corpus_seed,
            data_dir=folder,
        )
        for spec in study.corpora
        for size in study.vocab_sizes
    ]


def plan_study(study: Study, texts: Sequence[KnownText]) -> Plan:
    """The steps of a study: references first, then training, then timing on a quiet machine."""

    def steps(done: Done, failed: Failed) -> list[Step]:
        return [
            *(
                _ngram_step(study, text, done, failed)
                for text in texts
                if text.train_tokens <= NGRAM_MOST_TOKENS
            ),
            *_train_steps(study, texts, done, failed),
            *_timing_steps(study, texts, done, failed),
        ]

    return steps


def _ngram_step(study: Study, text: KnownText, done: Done, failed: Failed) -> Step:
    """The reference that needs no training."""
    trial = NgramTrial(
        corpus=text.name,
        corpus_sha256=text.sha256,
        vocab_size=text.vocab_size,
        order=NGRAM_ORDER,
    )
    return Step(
        title=f"{trial.order}-gram model {_place(study, text)}",
        job=NgramJob(trial=trial, text=text.source, limits=_limits(study)),
        state=state_of(trial_id(trial), done, failed),
    )


def _train_steps(
    study: Study, texts: Sequence[KnownText], done: Done, failed: Failed
) -> Iterator[Step]:
    for text in texts:
        for encoder in study.encoders:
            for layer in study.layers:
                yield from _best_rate_steps(study, text, encoder, layer, done, failed)


def _best_rate_steps(
    study: Study,
    text: KnownText,
    encoder: str,
    layer: str,
    done: Done,
    failed: Failed,
) -> Iterator[Step]:
    """Try the learning rates on a short budget; the best of them gets every budget and seed."""
    rates = study.learning_rates
    best, waiting, title = rates[0], None, f"{layer} {_place(study, text)}"
    if len(study.encoders) > 1:
        title += f" {encoder}"
    if len(rates) > 1:
        tuning = {
            rate: train_trial(study, text, encoder, layer, rate, study.tune_tokens, study.seeds[0])
            for rate in rates
        }
        for rate, trial in tuning.items():
            state = state_of(trial_id(trial), done, failed)
            yield _train_step(f"tuning {title} lr={rate:g}", study, text, trial, state)
            if state is State.DUE:
                waiting = State.WAITING
        found = {
            rate: record.result.valid.perplexity
            for rate, trial in tuning.items()
            if isinstance(record := done.get(trial_id(trial)), TrainRecord)
        }
        if found:
            best = min(found, key=lambda rate: found[rate])
        elif waiting is None:
            waiting = State.HOPELESS
    for tokens in study.max_tokens:
        for seed in study.seeds:
            trial = train_trial(study, text, encoder, layer, best, tokens, seed)
            rate_title = f"lr={best:g}" if waiting is None else f"lr=best of {len(rates)}"
            seed_title = f" seed={seed}" if len(study.seeds) > 1 else ""
            size_title = f" {tokens:,} tokens" if len(study.max_tokens) > 1 else ""
            yield _train_step(
                f"{title} {rate_title}{seed_title}{size_title}",
                study,
                text,
                trial,
                waiting or state_of(trial_id(trial), done, failed),
            )


def train_trial(
    study: Study,
    text: KnownText,
    encoder: str,
    layer: str,
    rate: float,
    tokens: int,
    seed: int,
) -> TrainTrial:
    """One model to train."""
    return TrainTrial(
        corpus=text.name,
        corpus_sha256=text.sha256,
        vocab_size=text.vocab_size,
        layer=layer,
        encoder=encoder,
        embedding_size=study.embedding_size or study.hidden_size,
        hidden_size=study.hidden_size,
        num_layers=study.num_layers,
        dropout=study.dropout,
        tied=study.tied,
        optimizer=study.optimizer,
        learning_rate=rate,
        clip_norm=study.clip_norm,
        batch_size=study.batch_size,
        bptt=study.bptt,
        max_tokens=tokens,
        seed=seed,
        threads=threads_of(study),
        device=study.device,
        dtype="float32",
    )


def _train_step(title: str, study: Study, text: KnownText, trial: TrainTrial, state: State) -> Step:
    job = TrainJob(
        trial=trial,
        text=text.source,
        limits=_limits(study),
        checkpoint_seconds=study.checkpoint_seconds,
    )
    return Step(title, job, state)


def _timing_steps(
    study: Study, texts: Sequence[KnownText], done: Done, failed: Failed
) -> Iterator[Step]:
    if not study.time_budget:
        return
    for size in dict.fromkeys(text.vocab_size for text in texts):
        group = [
            SpeedTrial(
                layer=layer,
                vocab_size=size,
                hidden_size=study.hidden_size,
                num_tokens=study.batch_size * study.bptt,
                optimizer=study.optimizer,
                clip_norm=study.clip_norm,
                seed=study.seeds[0],
                threads=study.threads or usable_cores(),
                device=study.device,
                dtype="float32",
            )
            for layer in study.layers
        ]
        yield from time_steps(group, study.time_budget, _limits(study), done, failed)


def _place(study: Study, text: KnownText) -> str:
    name = f"{text.name} " if len(study.corpora) > 1 else ""
    return f"{name}V={text.vocab_size:,}"


def threads_of(study: Study) -> int:
    """Of a trial in training."""
    return study.threads or max(1, usable_cores() // study.workers)


def _limits(study: Study) -> Limits:
    gigabytes = study.memory_limit
    return Limits(
        seconds=study.time_limit, bytes=None if gigabytes is None else int(gigabytes * 1e9)
    )
