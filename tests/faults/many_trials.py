"""A study of many trials that take no time: ``python -m tests.faults.many_trials STORE SEED``."""

from __future__ import annotations

import random
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from softmax_bench.records.record import Record
from softmax_bench.records.trial import TrainTrial
from softmax_bench.study.executors.local import LocalExecutor
from softmax_bench.study.jobs.job import Text, TrainJob
from softmax_bench.study.plan.plan import Plan, Step, ids_of, state_of
from softmax_bench.study.run.outcome import Outcome
from softmax_bench.study.run.session import run
from tests.records import train_record

TRIALS = 30


def all_trials() -> list[TrainTrial]:
    """Of each study."""
    return [train_record("full", 50, 100.0, rate=0.01 * (i + 1)).trial for i in range(TRIALS)]


def plan_in_any_order(seed: int) -> Plan:
    """The same trials whatever the seed, in an order of its own."""
    trials = all_trials()
    random.Random(seed).shuffle(trials)
    text = Text(spec="none", vocab_size=None, seed=0)

    def steps(done: Mapping[str, Record], failed: Collection[str]) -> list[Step]:
        found = []
        for trial in trials:
            step = Step("trial", TrainJob(trial=trial, text=text), state_of("", {}, ()))
            (identity,) = ids_of(step)
            found.append(Step(step.title, step.job, state_of(identity, done, failed)))
        return found

    return steps


def run_many(store: Path, seed: int) -> Outcome:
    with LocalExecutor(store, 2, "tests.faults.counting_worker") as executor:
        return run(plan_in_any_order(seed), store, executor)


if __name__ == "__main__":
    outcome = run_many(Path(sys.argv[1]), int(sys.argv[2]))
    sys.exit(0 if outcome.complete and outcome.done == TRIALS else 1)
