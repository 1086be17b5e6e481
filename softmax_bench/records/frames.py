"""Stored results as tidy pandas frames."""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from softmax_bench.records.record import (
    FailureRecord,
    FidelityRecord,
    NgramRecord,
    Record,
    SpeedRecord,
    TrainRecord,
)
from softmax_bench.records.result import Estimate, Evaluation
from softmax_bench.records.store import read_contents
from softmax_bench.records.training_time import QuietTime, quiet_times
from softmax_bench.records.trial import describe_trial, trial_id

if TYPE_CHECKING:
    import pandas as pd


def _nothing() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame()


@dataclass(frozen=True, eq=False)
class Results:
    """Stored results as tidy tables: one row per observation, configuration in the columns."""

    train: pd.DataFrame = field(default_factory=_nothing)
    """One row per trained model: the trial's fields, budgets, ``valid_*`` and ``test_*`` quality.
    ``train_seconds`` are those of a quiet machine if the step was timed (see
    :mod:`softmax_bench.records.training_time`), otherwise wall-clock seconds, which are always in
    ``clock_seconds``; ``disturbance_*`` describes what disturbed the machine during training.
    """
    curves: pd.DataFrame = field(default_factory=_nothing)
    """One row per evaluation during training; ``id`` refers to ``train``, and ``seconds`` are of
    the same kind as there.
    """
    speed: pd.DataFrame = field(default_factory=_nothing)
    """One row per timed phase of a layer: ``phase``, ``seconds``, ``low``, ``high``, ``samples``,
    cost, memory, and what disturbed the machine (``disturbance_*``).
    """
    ngrams: pd.DataFrame = field(default_factory=_nothing)
    """One row per n-gram model: ``order``, ``train_seconds``, ``valid_*`` and ``test_*`` quality.
    """
    environments: pd.DataFrame = field(default_factory=_nothing)
    """One row per record: the machine it was made on; ``id`` refers to the other tables."""
    gradients: pd.DataFrame = field(default_factory=_nothing)
    """One row per layer, number of samples and gradient (``of``: ``"hidden"`` or ``"weight"``):
    ``bias``, ``variance``, ``cosine``, ``direction`` with their bounds, and quality of the samples
    (``effective_samples``, ``log_z_bias`` ...).
    """
    divergences: pd.DataFrame = field(default_factory=_nothing)
    """One row per layer that was trained on the hidden states of a full model: ``divergence`` from
    that model in nats with its bounds, ``nats``, ``log_z_mean`` ...
    """
    failures: pd.DataFrame = field(default_factory=_nothing)
    """One row per trial that gave no result: its fields, ``title``, ``of``, ``cause``, ``reason``,
    ``log``.
    """
    _derived: dict[str, pd.DataFrame] = field(default_factory=dict, init=False, repr=False)


def derived(make: Callable[[Results], pd.DataFrame]) -> Callable[[Results], pd.DataFrame]:
    """Compute a table from results once, however many parts of a report need it."""

    @functools.wraps(make)
    def get(results: Results) -> pd.DataFrame:
        tables = results._derived
        if make.__name__ not in tables:
            tables[make.__name__] = make(results)
        return tables[make.__name__].copy(deep=False)

    return get


def load_results(path: str | os.PathLike[str]) -> Results:
    """Load the store at ``path`` as pandas frames.

    Raises:
        SoftmaxBenchError: There is no store at ``path``. Damaged records are logged as warnings.
    """
    contents = read_contents(Path(path))
    return frames(list(contents.records.values()), list(contents.failures.values()))


def frames(records: Sequence[Record], failures: Sequence[FailureRecord] = ()) -> Results:
    """Convert records into tidy tables."""
    import pandas as pd

    rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    quiet = quiet_times(records)
    for record in records:
        environment = msgspec.structs.asdict(record.environment)
        rows["environments"].append({"id": record.id, **environment})
        if isinstance(record, TrainRecord):
            step = quiet.get(record.id)
            rows["train"].append(_trained(record, step))
            rows["curves"] += _curve(record, step)
        elif isinstance(record, SpeedRecord):
            rows["speed"] += _timings(record)
        elif isinstance(record, FidelityRecord):
            rows["gradients"] += _gradients(record)
            rows["divergences"].append(_divergence(record))
        else:
            result = record.result
            quality = _quality(valid=result.valid, test=result.test)
            seconds = {"train_seconds": result.train_seconds}
            rows["ngrams"].append(_head(record) | seconds | quality)
    rows["failures"] = [_failure(record) for record in failures]
    return Results(**{table: pd.DataFrame(of_table) for table, of_table in rows.items()})


def _head(record: TrainRecord | SpeedRecord | NgramRecord) -> dict[str, Any]:
    trial = msgspec.structs.asdict(record.trial)
    return {"id": record.id, "started": record.started, **trial}


def _trained(record: TrainRecord, step: QuietTime | None) -> dict[str, Any]:
    result = record.result
    budget = {
        "train_tokens": result.train_tokens,
        "train_seconds": _seconds(step, result.train_tokens, result.train_seconds),
        "clock_seconds": result.train_seconds,
        "curve_seconds": result.curve_seconds,
        "final_seconds": result.final_seconds,
        "curve_tokens": result.curve_tokens,
        "train_perplexity": result.train_perplexity,
        "parameters": result.parameters,
        "layer_parameters": result.layer_parameters,
    }
    quality = _quality(valid=result.valid, test=result.test)
    disturbance = result.disturbance if step is None else step.disturbance
    return _head(record) | budget | quality | _nested("disturbance", disturbance)


def _curve(record: TrainRecord, step: QuietTime | None) -> list[dict[str, Any]]:
    trial = record.trial
    return [
        {"id": record.id, "layer": trial.layer, "vocab_size": trial.vocab_size}
        | msgspec.structs.asdict(point)
        | {"seconds": _seconds(step, point.tokens, point.seconds)}
        for point in record.result.curve
    ]


def _timings(record: SpeedRecord) -> list[dict[str, Any]]:
    """One row per phase."""
    cost = msgspec.structs.asdict(record.result)
    phases = cost.pop("phases")
    for part in ("memory", "disturbance"):
        cost |= _nested(part, cost.pop(part))
    return [
        _head(record)
        | {
            "phase": phase,
            "seconds": timing.median,
            "low": timing.low,
            "high": timing.high,
            "repetitions": timing.repetitions,
            "samples": timing.samples,
            "stopped": timing.stopped,
        }
        | cost
        for phase, timing in phases.items()
    ]


def _seconds(step: QuietTime | None, tokens: int, by_the_clock: float) -> float:
    return by_the_clock if step is None else tokens * step.seconds_per_token


def _nested(part: str, fields: msgspec.Struct | None) -> dict[str, Any]:
    """Columns of a part of a result; none if a record does not have it."""
    if fields is None:
        return {}
    return {f"{part}_{name}": value for name, value in msgspec.structs.asdict(fields).items()}


def _fidelity_head(record: FidelityRecord) -> dict[str, Any]:
    trial = record.trial
    return {
        "id": record.id,
        "started": record.started,
        "layer": trial.layer,
        "vocab_size": trial.model.vocab_size,
        "corpus": trial.model.corpus,
        "num_states": trial.num_states,
        "num_draws": trial.num_draws,
        "model": trial_id(trial.model),
    }


def _gradients(record: FidelityRecord) -> list[dict[str, Any]]:
    rows = []
    for point in record.result.points:
        samples = point.samples
        drawn = (
            {}
            if samples is None
            else {
                "effective_samples": samples.effective,
                "effective_samples_low": samples.effective_low,
                "log_z_bias": samples.log_z_bias,
                "log_z_sd": samples.log_z_sd,
            }
        )
        rows += [
            _fidelity_head(record)
            | {"num_samples": point.num_samples, "of": of}
            | {
                key: value
                for name in moments.__struct_fields__
                for key, value in _estimate(name, getattr(moments, name)).items()
            }
            | drawn
            for of, moments in (("hidden", point.hidden), ("weight", point.weight))
        ]
    return rows


def _divergence(record: FidelityRecord) -> dict[str, Any]:
    fields = msgspec.structs.asdict(record.result)
    fields.pop("points")
    divergence = fields.pop("divergence")
    return _fidelity_head(record) | _estimate("divergence", divergence) | fields


def _estimate(name: str, estimate: Estimate) -> dict[str, float]:
    return {
        name: estimate.value,
        f"{name}_low": estimate.low,
        f"{name}_high": estimate.high,
    }


def _failure(record: FailureRecord) -> dict[str, Any]:
    fields = msgspec.structs.asdict(record)
    title = describe_trial(record.trial)
    return {"id": fields.pop("id"), "title": title, **fields.pop("configuration"), **fields}


def _quality(**splits: Evaluation | None) -> dict[str, Any]:
    return {
        f"{split}_{name}": value
        for split, evaluation in splits.items()
        if evaluation is not None
        for name, value in msgspec.to_builtins(evaluation).items()
    }
