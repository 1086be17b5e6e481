"""The steps of a study: its grid, and each layer's best learning rate."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from softmax_bench.measure import usable_cores
from softmax_bench.records.record import TrainRecord
from softmax_bench.records.trial import (
    NgramTrial,
    SpeedTrial,
    TrainTrial,
    ngram_name,
    preferred,
    trial_id,
)
from softmax_bench.study.jobs.job import Limits, NgramJob, Text, TrainJob
from softmax_bench.study.plan.plan import Done, Failed, Plan, State, Step, state_of, time_steps
from softmax_bench.study.plan.tuning import search, widened_grid
from softmax_bench.study.study import CONDITIONS, Study
from softmax_bench.study.texts import TextSummary

NGRAM_ORDER = 5
"""The usual order in the literature."""
NGRAM_MOST_TOKENS = 25_000_000
"""Longer texts get no n-gram model, which takes about 200 bytes per token."""

MOST_WORKERS = 8
"""Most trials trained at once by default, since each holds a model in memory."""


def usable_threads() -> int:
    """Threads for a single process: OMP_NUM_THREADS, or the number of cores it may use."""
    configured = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return (int(configured) if configured.isdigit() else 0) or usable_cores()


def sources(study: Study, data_dir: Path | None = None) -> list[Text]:
    """The texts of a study at each vocabulary size."""
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


def plan_study(study: Study, texts: Sequence[TextSummary]) -> Plan:
    """The steps of a study: references first, then training, then timing on a quiet machine."""

    def steps(done: Done, failed: Failed) -> list[Step]:
        return [
            *(
                _ngram_step(study, text, tokens, done, failed)
                for text in texts
                for tokens in _counted(study, text)
            ),
            *_train_steps(study, texts, done, failed),
            *_timing_steps(study, texts, done, failed),
        ]

    return steps


def plan_given(study: Study, text: TextSummary) -> Plan:
    """The steps of a study of given hidden states: training, then timing with their counts."""

    def steps(done: Done, failed: Failed) -> list[Step]:
        timing = (
            speed_trials(study, text.vocab_size, None, text.sha256) if study.time_budget else []
        )
        return [
            *_train_steps(study, [text], done, failed),
            *time_steps(timing, study.time_budget, _limits(study), done, failed, text.source),
        ]

    return steps


def _counted(study: Study, text: TextSummary) -> Iterator[int | None]:
    """Tokens to count n-grams of: the whole text (None), and what the layers read if it is less."""
    if text.train_tokens <= NGRAM_MOST_TOKENS:
        yield None
    for budget in sorted(set(study.max_tokens)):
        if budget < text.train_tokens and budget <= NGRAM_MOST_TOKENS:
            yield budget


def _ngram_step(
    study: Study, text: TextSummary, tokens: int | None, done: Done, failed: Failed
) -> Step:
    """The reference that needs no training."""
    trial = NgramTrial(
        corpus=text.name,
        corpus_sha256=text.sha256,
        vocab_size=text.vocab_size,
        order=NGRAM_ORDER,
        max_tokens=tokens,
        batch_size=1 if tokens is None else study.batch_size,
    )
    return Step(
        title=f"{ngram_name(trial.order, tokens)} {_place(study, text)}",
        job=NgramJob(trial=trial, text=text.source, limits=_limits(study)),
        state=state_of(trial_id(trial), done, failed),
    )


def _train_steps(
    study: Study, texts: Sequence[TextSummary], done: Done, failed: Failed
) -> Iterator[Step]:
    for text in texts:
        for encoder in study.encoders:
            for layer in study.layers:
                yield from _best_rate_steps(study, text, encoder, layer, done, failed)


def _best_rate_steps(
    study: Study,
    text: TextSummary,
    encoder: str,
    layer: str,
    done: Done,
    failed: Failed,
) -> Iterator[Step]:
    """Tune the layer on a short budget; its best rate gets every budget and seed."""
    rate, tuned, waiting = study.learning_rates[0], "", None
    title = _title(study, text, encoder, layer)
    if is_tuned(study):
        tried: list[TrainTrial] = []
        for step, trial in _tuning_steps(study, text, encoder, layer, done, failed):
            yield step
            tried.append(trial)
            if step.state is State.DUE:
                waiting = State.WAITING
        nats = {
            (trial.learning_rate, trial.tuned): record.result.valid.nats
            for trial in tried
            if isinstance(record := done.get(trial_id(trial)), TrainRecord)
        }
        if nats:
            rate, tuned = preferred(nats)
        elif waiting is None:
            waiting = State.NO_USABLE_RATE
    for tokens in study.max_tokens:
        for seed in study.seeds:
            trial = train_trial(study, text, encoder, layer, rate, tokens, seed, tuned)
            rate_title = f"lr={rate:g}" if waiting is None else "lr=the best"
            seed_title = f" seed={seed}" if len(study.seeds) > 1 else ""
            size_title = f" {tokens:,} tokens" if len(study.max_tokens) > 1 else ""
            yield _train_step(
                f"{title} {rate_title}{seed_title}{size_title}",
                study,
                text,
                trial,
                waiting or state_of(trial_id(trial), done, failed),
            )


def plan_tuning(study: Study, texts: Sequence[TextSummary]) -> Plan:
    """Only the steps of a study that find how each layer is best trained."""

    def steps(done: Done, failed: Failed) -> list[Step]:
        return [
            step
            for text in texts
            for encoder in study.encoders
            for layer in study.layers
            for step, _ in _tuning_steps(study, text, encoder, layer, done, failed)
        ]

    return steps


def is_tuned(study: Study) -> bool:
    """Whether each layer searches for its own learning rate."""
    return study.tuning_trials > 0 or len(study.learning_rates) > 1


def _tuning_steps(
    study: Study, text: TextSummary, encoder: str, layer: str, done: Done, failed: Failed
) -> Iterator[tuple[Step, TrainTrial]]:
    """A grid of learning rates, or a search, up to the next trials it needs."""
    title = f"tuning {_title(study, text, encoder, layer)}"

    def make(rate: float, tuned: str = "") -> TrainTrial:
        return train_trial(
            study, text, encoder, layer, rate, study.tune_tokens, study.seeds[0], tuned, tuning=True
        )

    trials = (search if study.tuning_trials else widened_grid)(study, layer, make, done, failed)
    for trial, state in trials:
        what = f"lr={trial.learning_rate:g}" + (f", {trial.tuned}" if trial.tuned else "")
        yield _train_step(f"{title} {what}", study, text, trial, state), trial


def train_trial(
    study: Study,
    text: TextSummary,
    encoder: str,
    layer: str,
    rate: float,
    tokens: int,
    seed: int,
    tuned: str = "",
    *,
    tuning: bool = False,
) -> TrainTrial:
    """One model to train."""
    return TrainTrial(
        corpus=text.name,
        corpus_sha256=text.sha256,
        vocab_size=text.vocab_size,
        layer=layer,
        encoder=encoder,
        embedding_size=study.embedding_size or study.hidden_size,
        initial_accumulator_value=study.accumulator_start,
        learning_rate=rate,
        tuned=tuned,
        max_tokens=tokens,
        seed=seed,
        threads=threads_of(study),
        dtype="float32",
        tuning=tuning,
        **{name: getattr(study, name) for name in CONDITIONS},
    )


def _train_step(
    title: str, study: Study, text: TextSummary, trial: TrainTrial, state: State
) -> Step:
    job = TrainJob(
        trial=trial,
        text=text.source,
        limits=_limits(study),
        checkpoint_seconds=study.checkpoint_seconds,
    )
    return Step(title, job, state)


def _timing_steps(
    study: Study, texts: Sequence[TextSummary], done: Done, failed: Failed
) -> Iterator[Step]:
    if not study.time_budget:
        return
    for size in dict.fromkeys(text.vocab_size for text in texts):
        for encoder in study.encoders:
            group = speed_trials(study, size, encoder)
            yield from time_steps(group, study.time_budget, _limits(study), done, failed)


def speed_trials(
    study: Study, vocab_size: int, encoder: str | None, sha256: str | None = None
) -> list[SpeedTrial]:
    """The layers to time against each other at one vocabulary size, after the encoder's step."""
    return [
        SpeedTrial(
            layer=layer,
            vocab_size=vocab_size,
            hidden_size=study.hidden_size,
            num_tokens=study.batch_size * study.bptt,
            optimizer=study.optimizer,
            clip_norm=study.clip_norm,
            seed=study.seeds[0],
            threads=study.threads or usable_threads(),
            device=study.device,
            dtype="float32",
            corpus_sha256=sha256,
            encoder=encoder,
            embedding_size=study.embedding_size,
            num_layers=study.num_layers,
            bptt=study.bptt,
        )
        for layer in study.layers
    ]


def _title(study: Study, text: TextSummary, encoder: str, layer: str) -> str:
    title = f"{layer} {_place(study, text)}"
    return f"{title} {encoder}" if len(study.encoders) > 1 else title


def _place(study: Study, text: TextSummary) -> str:
    name = f"{text.name} " if len(study.corpora) > 1 else ""
    return f"{name}V={text.vocab_size:,}"


def threads_of(study: Study) -> int:
    """Threads of a training trial."""
    return study.threads or max(1, usable_threads() // workers_of(study))


def workers_of(study: Study) -> int:
    """Number of trials trained at once."""
    if study.workers:
        return study.workers
    parallel = usable_threads() // (study.threads or 1) if study.device == "cpu" else 1
    return min(max(1, parallel), MOST_WORKERS)


def _limits(study: Study) -> Limits:
    gigabytes = study.memory_limit
    return Limits(
        seconds=study.time_limit, bytes=None if gigabytes is None else int(gigabytes * 1e9)
    )
