"""Tuning: each layer's learning rate, and its own knobs, under an equal budget for all.

The search is Optuna's, and it has no memory of its own: it is told again what the store holds and
then asks for the next trial. A search that was interrupted therefore goes on as if it had not been.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import parse_spec
from softmax_bench.records.record import TrainRecord
from softmax_bench.records.trial import TrainTrial, trial_id
from softmax_bench.study.plan.plan import Done, Failed, State, state_of
from softmax_bench.study.study import Study

if TYPE_CHECKING:
    pass

MakeTrial = Callable[[float, str], TrainTrial]
"""From a learning rate and the options that were tuned to the trial on the budget of tuning."""

_RANDOM_TRIALS = 4
"""Drawn at random, after the usual values, before those that went well decide."""


def rate_range(study: Study) -> tuple[float, float]:
    """The least and the greatest learning rate to look at."""
    least, greatest = min(study.learning_rates), max(study.learning_rates)
    return (least, greatest) if least < greatest else (least / 10, greatest * 10)


def search(
    study: Study, layer: str, make: MakeTrial, done: Done, failed: Failed
) -> Iterator[tuple[TrainTrial, State]]:
    """The trials of one layer's search in their order, up to the first that is to be run.

    The first has the usual values: the middle learning rate, and the layer's own defaults. A trial
    that failed counts as twice as bad as a model that knows nothing.

    Raises:
        SoftmaxBenchError: Optuna is not installed.
    """
    optuna = _optuna()
    kind, given = parse_spec(layer)
    knobs = {name: knob for name, knob in kind.knobs.items() if name not in given}
    low, high = rate_range(study)
    space: dict[str, Any] = {
        "learning_rate": optuna.distributions.FloatDistribution(low, high, log=True)
    } | {
        name: optuna.distributions.FloatDistribution(knob.low, knob.high, log=knob.log)
        for name, knob in knobs.items()
    }
    usual = {name: inspect.signature(kind).parameters[name].default for name in knobs}
    sampler = optuna.samplers.TPESampler(seed=study.seeds[0], n_startup_trials=_RANDOM_TRIALS)
    history = optuna.create_study(sampler=sampler)
    history.enqueue_trial({"learning_rate": math.sqrt(low * high), **usual})
    tried: set[str] = set()
    for _ in range(3 * study.tuning_trials):  # now and then it asks for the same once more
        asked = history.ask(space)
        rate, *values = (float(f"{asked.params[name]:.3g}") for name in space)
        tuned = ", ".join(f"{name}={value:g}" for name, value in zip(knobs, values, strict=True))
        trial = make(rate, tuned)
        state = state_of(trial_id(trial), done, failed)
        if trial_id(trial) not in tried:
            yield trial, state
            tried.add(trial_id(trial))
        if state is State.DUE:
            return
        record = done.get(trial_id(trial))
        worst = 2 * math.log(trial.vocab_size)
        found = record.result.valid.nats if isinstance(record, TrainRecord) else worst
        history.tell(asked, min(found, worst))
        if len(tried) == study.tuning_trials:
            return


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise SoftmaxBenchError(
            "tuning_trials needs Optuna: pip install 'softmax-bench[tune]', or name several "
            "learning_rates and leave tuning_trials at 0"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
