"""Tuning of each layer's learning rate and options, with an equal budget for all.

The search is Optuna's and has no memory of its own: it is given the contents of the store and then
asked for the next trial. An interrupted search therefore continues exactly.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import parse_spec
from softmax_bench.records.record import TrainRecord
from softmax_bench.records.trial import TrainTrial, preferred, trial_id
from softmax_bench.study.plan.plan import Done, Failed, State, state_of
from softmax_bench.study.study import Study

MakeTrial = Callable[[float, str], TrainTrial]
"""Creates the trial for a learning rate and tuned options, with the tuning budget."""

_RANDOM_TRIALS = 4
"""Number of random trials, after the default values, before results guide the search."""
MOST_BEYOND = 4
"""Most learning rates tried beyond each layer's grid."""


def widened_grid(
    study: Study, layer: str, make: MakeTrial, done: Done, failed: Failed
) -> Iterator[tuple[TrainTrial, State]]:
    """A trial for each learning rate of the study, and further ones until the best is bracketed.

    The best is the one that is used, see :func:`~softmax_bench.records.trial.preferred`. Each
    further rate is as far from the end of the grid as the end is from its neighbour. A rate at
    which training failed bounds the grid as a bad one does.
    """
    rates = sorted(study.learning_rates)
    low, high = rates[0] / rates[1], rates[-1] / rates[-2]
    untried, beyond = list(study.learning_rates), 0
    nats: dict[tuple[float, str], float] = {}
    while untried:
        due = False
        for rate in untried:
            trial = make(rate, "")
            state = state_of(trial_id(trial), done, failed)
            yield trial, state
            due |= state is State.DUE
            if isinstance(record := done.get(trial_id(trial)), TrainRecord):
                nats[rate, ""] = record.result.valid.nats
        if due or not nats or beyond == MOST_BEYOND:
            return
        best, _ = preferred(nats)
        if best not in (rates[0], rates[-1]):
            return
        untried = [float(f"{best * (low if best == rates[0] else high):.3g}")]
        rates = sorted([*rates, *untried])
        beyond += 1


def rate_range(study: Study) -> tuple[float, float]:
    """The lowest and highest learning rate to try first."""
    least, greatest = min(study.learning_rates), max(study.learning_rates)
    return (least, greatest) if least < greatest else (least / 10, greatest * 10)


def search(
    study: Study, layer: str, make: MakeTrial, done: Done, failed: Failed
) -> Iterator[tuple[TrainTrial, State]]:
    """The trials of one layer's search in order, up to the first that has not run.

    The first trial uses the middle learning rate and the layer's default options. A failed trial
    counts as twice as bad as a model that knows nothing. If the best rate so far is near an end of
    the range, the range is extended beyond it.

    Raises:
        SoftmaxBenchError: Optuna is not installed.
    """
    optuna = _optuna()
    kind, fixed = parse_spec(layer)
    options = {name: option.default for name, option in inspect.signature(kind).parameters.items()}
    knobs = {
        name: knob
        for name, knob in kind.knobs.items()
        if name not in fixed and (knob.needs is None or knob.needs in (options | fixed).items())
    }
    low, high = rate_range(study)
    beyond = (high / low) ** (1 / MOST_BEYOND)
    least, greatest = low / beyond**MOST_BEYOND, high * beyond**MOST_BEYOND
    space: dict[str, Any] = {
        name: optuna.distributions.FloatDistribution(knob.low, knob.high, log=knob.log)
        for name, knob in knobs.items()
    }
    defaults = {name: options[name] for name in knobs}
    sampler = optuna.samplers.TPESampler(seed=study.seeds[0], n_startup_trials=_RANDOM_TRIALS)
    history = optuna.create_study(sampler=sampler)
    history.enqueue_trial({"learning_rate": math.sqrt(low * high), **defaults})
    tried: set[str] = set()
    best = math.inf, math.sqrt(low * high)
    for _ in range(3 * study.tuning_trials):  # occasionally it asks for the same again
        rates = optuna.distributions.FloatDistribution(low, high, log=True)
        suggestion = history.ask({"learning_rate": rates, **space})
        rate, *values = (
            float(f"{suggestion.params[name]:.3g}") for name in ("learning_rate", *knobs)
        )
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
        nats = record.result.valid.nats if isinstance(record, TrainRecord) else worst
        history.tell(suggestion, min(nats, worst))
        best = min(best, (nats, rate))
        if best[1] < low * beyond**0.5:
            low = max(least, low / beyond)
        elif best[1] > high / beyond**0.5:
            high = min(greatest, high * beyond)
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
