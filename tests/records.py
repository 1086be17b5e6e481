"""Fabricated records."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from softmax_bench.records.record import (
    Environment,
    FidelityRecord,
    NgramRecord,
    Record,
    SpeedRecord,
    TrainRecord,
)
from softmax_bench.records.result import (
    CurvePoint,
    Disturbance,
    Estimate,
    Evaluation,
    FidelityResult,
    FrequencyBand,
    GradientMoments,
    Memory,
    NgramResult,
    SamplePoint,
    SampleQuality,
    SpeedResult,
    Timing,
    TrainResult,
)
from softmax_bench.records.store import write_record
from softmax_bench.records.trial import FidelityTrial, NgramTrial, SpeedTrial, TrainTrial, trial_id

ENVIRONMENT = Environment(
    processor="Test processor", cores=2, memory_bytes=2**34, system="Linux", accelerator=None,
    versions={"torch": "2.13.0"}, blas="MKL", git_commit="abc", variables={},
)  # fmt: skip


def timing(seconds: float) -> Timing:
    samples = [seconds * factor for factor in (0.98, 1.0, 1.02, 0.99, 1.01, 1.0, 1.0)]
    return Timing(
        median=seconds, low=0.99 * seconds, high=1.01 * seconds, repetitions=7, samples=samples,
        stopped="precise",
    )  # fmt: skip


def speed_record(layer: str, size: int, seconds: float, **changes: Any) -> SpeedRecord:
    trial = SpeedTrial(
        layer=layer, vocab_size=size, hidden_size=8, num_tokens=20, optimizer="sgd", seed=0,
        threads=2, device="cpu", dtype="float32",
    )  # fmt: skip
    trial = msgspec.structs.replace(trial, **changes)
    shares = {
        "draw": 0.1, "forward": 0.4, "backward": 0.25, "clip": 0.05, "optimizer": 0.2, "step": 1.0,
        "evaluation": 2.0, "decoding": 3.0,
    }  # fmt: skip
    return SpeedRecord(
        id=trial_id(trial), started="2026-01-01T00:00:00+00:00", trial=trial,
        environment=ENVIRONMENT,
        result=SpeedResult(
            phases={phase: timing(share * seconds) for phase, share in shares.items()},
            peak_bytes=int(1e6 * seconds), parameters=9 * size, rows_touched=size,
            flops=2e9 * seconds, bytes=1e7 * seconds,
            memory=Memory(
                parameters=36 * size, gradients=36 * size, optimizer=36 * size, activations=1000,
            ),
            machine_flops=1e10, machine_bytes=1e10,
            machine_products={"float32": 1e10, "bfloat16": 2e10},
            disturbance=Disturbance(
                foreign=0.01, stolen=0.0, clock_change=0.0, switches_per_second=5.0
            ),
        ),
    )  # fmt: skip


def learned(record: Record) -> dict[str, Any]:
    """A record without times, and without the accounts of interruptions and disturbances.

    What is left is the same however often training was interrupted, and on whichever machine.
    """
    fields = msgspec.to_builtins(record)
    times = ("train_seconds", "curve_seconds", "final_seconds")
    result = fields["result"] | dict.fromkeys([*times, "resumed", "disturbance"])
    for point in result.get("curve", ()):
        point["seconds"] = None
    return {"id": fields["id"], "trial": fields["trial"], "result": result}


R = TypeVar("R", SpeedRecord, TrainRecord)


def disturbed(record: R, foreign: float = 0.42) -> R:
    """The same, made while other processes took a share of the processor."""
    busy = Disturbance(foreign=foreign, stolen=0.0, clock_change=0.0, switches_per_second=5.0)
    return msgspec.structs.replace(
        record, result=msgspec.structs.replace(record.result, disturbance=busy)
    )


def evaluation(perplexity: float) -> Evaluation:
    return Evaluation(
        tokens=500, unknown_tokens=3, nats=math.log(perplexity), perplexity=perplexity,
        true_perplexity=50.0, adjusted_perplexity=1.1 * perplexity,
        block_nats=[100 * math.log(perplexity) + shift for shift in (-9.0, 4.0, 0.0, 2.0, 3.0)],
        bands=[
            FrequencyBand(low=0, high=9, tokens=100, nats=math.log(3 * perplexity)),
            FrequencyBand(low=10, high=None, tokens=400, nats=math.log(perplexity / 2)),
        ],
    )  # fmt: skip


def ngram_record(size: int, perplexity: float, **changes: Any) -> NgramRecord:
    trial = NgramTrial(corpus="ptb", corpus_sha256=f"{size}", vocab_size=size, order=5)
    trial = msgspec.structs.replace(trial, **changes)
    return NgramRecord(
        id=trial_id(trial), started="2026-01-01T00:00:00+00:00", trial=trial,
        environment=ENVIRONMENT,
        result=NgramResult(
            train_seconds=1.0, valid=evaluation(perplexity), test=evaluation(perplexity + 1)
        ),
    )  # fmt: skip


def train_record(
    layer: str, size: int, perplexity: float, rate: float = 0.1, **changes: Any
) -> TrainRecord:
    trial = TrainTrial(
        corpus="ptb", corpus_sha256=f"{size}", vocab_size=size, layer=layer, encoder="lstm",
        embedding_size=8, hidden_size=8, num_layers=1, dropout=0.0, tied=False, optimizer="sgd",
        learning_rate=rate, clip_norm=5.0, batch_size=2, bptt=10, max_tokens=1000, seed=0,
        threads=2, device="cpu", dtype="float32",
    )  # fmt: skip
    trial = msgspec.structs.replace(trial, **changes)
    return TrainRecord(
        id=trial_id(trial), started="2026-01-01T00:00:00+00:00", trial=trial,
        environment=ENVIRONMENT,
        result=TrainResult(
            train_tokens=trial.max_tokens, train_seconds=9.0,
            parameters=99 * size, layer_parameters=9 * size,
            curve=[
                CurvePoint(tokens=n, seconds=n / 99, train_loss=5.0, valid_perplexity=value)
                for n, value in (
                    (trial.max_tokens // 2, 2 * perplexity), (trial.max_tokens, perplexity)
                )
            ],
            valid=evaluation(perplexity), test=evaluation(perplexity + 1),
        ),
    )  # fmt: skip


def fill_store(folder: Path) -> None:
    """Four layers at three vocabulary sizes."""
    for size in (1000, 10_000, 100_000):
        write_record(folder, ngram_record(size, 120.0 + size / 1000))
        for number, layer in enumerate(
            ("full", "hierarchical", "nce(num_samples=25)", "sampled(num_samples=64)")
        ):
            seconds = size / 1e5 if layer == "full" else 0.01 * (1 + number / 50)
            write_record(folder, speed_record(layer, size, seconds))
            write_record(folder, train_record(layer, size, 100.0 + number + size / 1000))


def fidelity_record(layer: str, size: int, divergence: float, **changes: Any) -> FidelityRecord:
    """With a gradient whose errors fall as the samples grow; exact layers have none."""
    trial = FidelityTrial(
        layer=layer, model=train_record("full", size, 100.0).trial, sample_counts=(4, 64),
        num_states=20, num_draws=16, learning_rates=(0.1,),
    )  # fmt: skip
    trial = msgspec.structs.replace(trial, **changes)

    def around(value: float) -> Estimate:
        return Estimate(value=value, low=0.9 * value, high=1.1 * value)

    def point(samples: int) -> SamplePoint:
        moments = GradientMoments(
            bias=around(1 / samples), variance=around(2 / samples), cosine=around(0.8),
            direction=around(0.9),
        )  # fmt: skip
        quality = SampleQuality(
            effective=samples / 2, effective_low=samples / 9, log_z_bias=-0.1, log_z_sd=0.2
        )
        return SamplePoint(num_samples=samples, hidden=moments, weight=moments, samples=quality)

    return FidelityRecord(
        id=trial_id(trial), started="2026-01-01T00:00:00+00:00", trial=trial,
        environment=ENVIRONMENT,
        result=FidelityResult(
            points=[] if layer == "full" else [point(k) for k in trial.sample_counts],
            learning_rate=0.1, divergence=around(divergence), tokens=100, nats=5.1, full_nats=5.0,
            log_z_mean=0.3, log_z_sd=0.1,
        ),
    )  # fmt: skip
