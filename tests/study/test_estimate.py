"""What steps are said to take."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace

import msgspec
import pytest
from rich.console import Console

from softmax_bench.corpora import load_corpus
from softmax_bench.layers import create_layer, layer_names
from softmax_bench.lm.ngram import KneserNey
from softmax_bench.measure import Machine, zipf_counts
from softmax_bench.records.trial import trial_id
from softmax_bench.study.jobs.job import SpeedJob, Text, TrainJob
from softmax_bench.study.plan.estimate import (
    _NGRAM_BYTES_PER_TOKEN,
    USUAL_SLOWDOWN,
    Estimator,
    _describe,
    memory_mistake,
    memory_of,
    memory_warnings,
)
from softmax_bench.study.plan.grid import NGRAM_ORDER, plan_study
from softmax_bench.study.plan.plan import State, Step
from softmax_bench.study.plan.plan_table import print_plan
from softmax_bench.study.study import Study
from softmax_bench.study.texts import TextSummary
from tests.records import speed_record, train_record

MACHINE = Machine(flops=1e11, products={}, bytes=1e10)
TEXT = TextSummary(
    source=Text(spec="none", vocab_size=1000, seed=0), name="none", sha256="0", vocab_size=1000,
    train_tokens=10**6, valid_tokens=1000, test_tokens=1000, unknown_share=0.0,
)  # fmt: skip


def planned(text: TextSummary = TEXT, **changes: object) -> tuple[Study, list[Step]]:
    study = msgspec.convert(
        {"layers": ["full", "sampled"], "vocab_sizes": [1000], "threads": 1} | changes, Study
    )
    return study, list(plan_study(study, [text])({}, ()))


def training(steps: list[Step], layer: str) -> Step:
    (found,) = (s for s in steps if isinstance(s.job, TrainJob) and s.job.trial.layer == layer)
    return found


@pytest.mark.parametrize("layer", layer_names())
def test_a_layer_is_described_as_it_is(layer: str) -> None:
    """Made without values where that can be: shapes and costs are those of the layer itself."""
    real = create_layer(layer, 16, 500, zipf_counts(500), sparse=True)
    described = _describe(layer, 16, 500, 40)
    assert described.cost == real.cost(40)
    held = sum(parameter.nbytes for parameter in real.parameters())
    assert described.parameter_bytes == held


def test_training_takes_what_its_products_take() -> None:
    _, steps = planned(max_tokens=[10**6], encoders=["rnn"], hidden_size=100, embedding_size=50)
    estimate = Estimator(MACHINE, [TEXT], steps, {}).estimate(training(steps, "full"))
    layer = 6 * 1000 * 100 * 10**6
    encoder = 6 * (100 * (50 + 100) + 2 * 100) * 10**6
    at_full_rate = (layer + encoder) / 1e11
    assert USUAL_SLOWDOWN * at_full_rate < estimate.seconds < 2 * USUAL_SLOWDOWN * at_full_rate
    parameters = 4 * (1000 * 50 + 1000 * 101)
    assert estimate.bytes > 3.5e8 + 4e6 + 2 * parameters  # Adagrad's state is as large again


def test_a_sample_costs_less_than_all_classes_and_more_tokens_more() -> None:
    large = replace(TEXT, vocab_size=100_000)
    _, steps = planned(large)
    _, longer = planned(large, max_tokens=[10**6])
    estimator = Estimator(MACHINE, [TEXT], steps, {})
    full, sampled = (estimator.estimate(training(steps, name)) for name in ("full", "sampled"))
    assert full.seconds > sampled.seconds
    more = estimator.estimate(training(longer, "full"))
    assert more.seconds > 5 * full.seconds


def test_counting_takes_what_it_is_said_to_take() -> None:
    """The arrays alone, a tenth less than what the process grows by."""
    text = load_corpus("synthetic", vocab_size=1000, seed=0, tokens=100_000)
    tracemalloc.start()
    try:
        KneserNey(text.train, vocab_size=1000, eos_id=text.eos_id, order=NGRAM_ORDER)
        arrays = tracemalloc.get_traced_memory()[1] / len(text.train)
    finally:
        tracemalloc.stop()
    assert 0.75 * _NGRAM_BYTES_PER_TOKEN < arrays < _NGRAM_BYTES_PER_TOKEN


def test_what_is_done_says_how_long_the_rest_takes() -> None:
    _, steps = planned()
    first = Estimator(MACHINE, [TEXT], steps, {})
    job = training(steps, "full").job
    assert isinstance(job, TrainJob)
    record = train_record("full", 1000, 100.0)  # which took 9 seconds
    done = {trial_id(job.trial): msgspec.structs.replace(record, trial=job.trial)}
    second = Estimator(MACHINE, [TEXT], steps, done)
    assert (first.learned_from, second.learned_from) == (0, 1)
    step = training(steps, "sampled")
    at_full_rate = first.estimate(step).seconds
    assert second.slowdown > first.slowdown
    assert second.estimate(step).seconds > at_full_rate


def test_the_table() -> None:
    study, steps = planned(learning_rates=[0.1, 0.2], memory_limit=0.1)
    console = Console(file=StringIO(), width=100)
    print_plan(steps, Estimator(MACHINE, [TEXT], steps, {}), study, console)
    assert isinstance(console.file, StringIO)
    printed = console.file.getvalue()
    assert "tuning full V=1,000 lr=0.2" in printed
    assert "full V=1,000 lr=the best" in printed
    assert "10 trials: 8 due, 2 waiting" in printed
    assert "The estimate is often off by a factor of two" in " ".join(printed.split())
    assert "and memory_limit is 0.1 GB" in printed
    done = [Step(step.title, step.job, State.DONE) for step in steps]
    print_plan(done, Estimator(MACHINE, [TEXT], steps, {}), study, console)
    assert console.file.getvalue().endswith("10 trials: 10 done\n")


def test_the_whole_of_a_trial_is_set_against_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters and optimiser alone would fit: 160 MB for each layer, embedding included."""
    large = replace(TEXT, vocab_size=100_000)
    study, steps = planned(large, hidden_size=100, time_budget=1, workers=2)
    full = memory_of(training(steps, "full").job)
    kept = 2 * 4 * 100_000 * (100 + 101)
    assert kept + 350e6 + 40e6 < full < 2 * (kept + 350e6)

    def machine(total: float) -> tuple[str, list[str]]:
        memory = SimpleNamespace(total=total, available=total)
        monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
        return memory_mistake(steps), list(memory_warnings(steps, study.workers))

    assert machine(10e9) == ("", [])
    told, warned = machine(full - 1)
    assert "full V=100,000" in told
    assert "smaller hidden_size" in told
    told, warned = machine(1.1 * full)
    assert told == ""
    assert "choose fewer workers" in warned[0]
    limited = planned(large, hidden_size=100, memory_limit=full / 1e9 - 0.01)[1]
    told, warned = memory_mistake(limited), list(memory_warnings(limited, 1))
    assert told == ""
    assert "memory_limit is" in warned[0]
    done = [replace(step, state=State.DONE) for step in steps]
    assert memory_mistake(done) == ""


def test_memory_of_millions_of_classes_is_known_without_their_trees() -> None:
    """Nothing of that size is made."""
    trials = [
        speed_record(layer, 10**9, 1.0, hidden_size=256).trial for layer in ("full", "hierarchical")
    ]
    job = SpeedJob(trials=tuple(trials), budget_seconds=1.0)
    assert memory_of(job) > 2 * 4 * 256 * 10**9
