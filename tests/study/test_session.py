"""What is due, and a study that goes on whatever becomes of its trials."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from softmax_bench.records.record import FailureRecord, Record
from softmax_bench.records.store import DiskFullError, read_store, record_path, write_record
from softmax_bench.records.trial import SpeedTrial, TrainTrial, trial_id
from softmax_bench.study.executors.local import LocalExecutor
from softmax_bench.study.jobs.job import (
    Failure,
    Job,
    JobExit,
    Limits,
    NgramJob,
    Report,
    SpeedJob,
    Text,
    TrainJob,
    job_id,
)
from softmax_bench.study.jobs.process import JobProcess
from softmax_bench.study.plan.grid import plan_study, sources, threads_of, workers_of
from softmax_bench.study.plan.plan import Plan, State, Step, ids_of, plan_timing
from softmax_bench.study.run.outcome import Outcome
from softmax_bench.study.run.session import run
from softmax_bench.study.run.watcher import Watcher
from softmax_bench.study.study import Study
from softmax_bench.study.texts import TextSummary
from tests.records import ngram_record, speed_record, train_record
from tests.study.jobs import WORKER, speed_job

TEXT = TextSummary(
    source=Text(spec="none", vocab_size=50, seed=0), name="none", sha256="0", vocab_size=50,
    train_tokens=100, valid_tokens=10, test_tokens=10, unknown_share=0.0,
)  # fmt: skip


class Protocol(Watcher):
    """Remembers what started, and what could have disturbed what."""

    def __init__(self) -> None:
        self.started_jobs: list[Job] = []
        self.running: set[str] = set()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def started(self, step: Step) -> None:
        self.started_jobs.append(step.job)
        assert not (self.running and isinstance(step.job, SpeedJob))
        self.running.add(job_id(step.job))

    def finished(self, step: Step, records: Sequence[Record]) -> None:
        self.running.remove(job_id(step.job))

    def failed(self, step: Step, failures: Sequence[FailureRecord]) -> None:
        self.running.remove(job_id(step.job))


def study_of(**changes: object) -> Study:
    return msgspec.convert(
        {"vocab_sizes": [50], "layers": ["full", "nce"], "threads": 1} | changes, Study
    )


def without_ngrams(plan: Plan) -> Plan:
    """The worker of these tests trains and times only."""

    def steps(done: Mapping[str, Record], failed: Collection[str]) -> list[Step]:
        found = plan(done, failed)
        return [step for step in found if isinstance(step.job, TrainJob | SpeedJob)]

    return steps


def go(store: Path, plan: Plan, *, slots: int = 1, **how: bool) -> tuple[Outcome, Protocol]:
    protocol = Protocol()
    with LocalExecutor(store, slots, WORKER) as executor:
        outcome = run(without_ngrams(plan), store, executor, [protocol], **how)
    return outcome, protocol


def trained(step: Step, perplexity: float = 100.0) -> Record:
    assert isinstance(step.job, TrainJob)
    record = train_record("full", 50, perplexity)
    return msgspec.structs.replace(record, id=trial_id(step.job.trial), trial=step.job.trial)


def rates_of(steps: Sequence[Step], layer: str = "full") -> list[tuple[float, int, int, State]]:
    return [
        (trial.learning_rate, trial.max_tokens, trial.seed, step.state)
        for step in steps
        if isinstance(step.job, TrainJob)
        for trial in [step.job.trial]
        if trial.layer == layer
    ]


def test_every_cell_of_the_grid_is_planned() -> None:
    study = study_of(
        corpora=["a", "b"], vocab_sizes=[50, 60], encoders=["rnn", "lstm"], seeds=[0, 1],
        max_tokens=[100, 200],
    )  # fmt: skip
    assert [(text.spec, text.vocab_size) for text in sources(study)] == [
        ("a", 50), ("a", 60), ("b", 50), ("b", 60),
    ]  # fmt: skip
    texts = [
        TextSummary(source, source.spec, source.spec, source.vocab_size or 0, 1, 1, 1, 0.0)
        for source in sources(study)
    ]
    steps = plan_study(study, texts)({}, ())
    trials = [identity for step in steps for identity in ids_of(step)]
    assert len(set(trials)) == len(trials)
    # n-grams, models, and timings at both sizes beside each encoder
    assert len(trials) == 4 + 4 * 2 * 2 * 2 * 2 + 2 * 2 * 2


def test_conditions_of_a_study_are_those_of_its_trials() -> None:
    conditions = {
        "schedule": "stall", "decay": 0.25, "decay_after": 2, "evaluations": 9, "patience": 3,
        "warmup_tokens": 7,
        "init_range": 0.1, "dropout": 0.3, "layer_rate": 2.0, "optimizer": "sgd", "clip_norm": 0.25,
    }  # fmt: skip
    study = study_of(learning_rates=[1.0, 2.0], time_budget=0, **conditions)
    jobs = [step.job for step in plan_study(study, [TEXT])({}, ())]
    trained = [job.trial for job in jobs if isinstance(job, TrainJob)]
    assert len(trained) == 6
    for trial in trained:
        assert msgspec.structs.asdict(trial).items() >= conditions.items()


@pytest.mark.parametrize(
    ("cores", "changes", "workers", "threads"),
    [
        (2, {}, 2, 1),
        (4, {"threads": 2}, 2, 2),
        (2, {"threads": 3}, 1, 3),
        (64, {}, 8, 8),
        (64, {"workers": 3}, 3, 21),
        (8, {"device": "cuda"}, 1, 8),
    ],
)
def test_trainings_share_the_cores(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    changes: dict[str, object],
    workers: int,
    threads: int,
) -> None:
    monkeypatch.setattr("softmax_bench.study.plan.grid.usable_threads", lambda: cores)
    study = study_of(**{"threads": 0} | changes)
    assert (workers_of(study), threads_of(study)) == (workers, threads)


def test_n_grams_are_counted_in_the_whole_text_if_it_is_not_too_long_and_in_what_is_read() -> None:
    texts = [TEXT, replace(TEXT, train_tokens=25_000_001)]
    steps = plan_study(study_of(time_budget=0), texts)({}, ())
    whole, part = [step for step in steps if isinstance(step.job, NgramJob)]
    assert whole.title == "5-gram model, whole text V=50"
    assert part.title == "5-gram model, 100,000 tokens V=50"
    assert isinstance(part.job, NgramJob)
    assert (part.job.trial.max_tokens, part.job.trial.batch_size) == (100_000, 20)
    assert len([step for step in steps if isinstance(step.job, TrainJob)]) == 4


def test_the_best_learning_rate_gets_every_budget_and_seed() -> None:
    study = study_of(learning_rates=[0.1, 0.2, 0.4], tune_tokens=7, seeds=[3, 4], layers=["full"])
    plan = plan_study(study, [TEXT])
    first = plan({}, ())
    assert rates_of(first) == [
        (0.1, 7, 3, State.DUE), (0.2, 7, 3, State.DUE), (0.4, 7, 3, State.DUE),
        (0.1, 100_000, 3, State.WAITING), (0.1, 100_000, 4, State.WAITING),
    ]  # fmt: skip
    tuning = [step for step in first if step.title.startswith("tuning")]
    done = {ids_of(tuning[0])[0]: trained(tuning[0], 120)}
    assert rates_of(plan(done, ()))[3:] == rates_of(first)[3:]
    done[ids_of(tuning[1])[0]] = trained(tuning[1], 110)
    done[ids_of(tuning[2])[0]] = trained(tuning[2], 130)
    assert rates_of(plan(done, ()))[3:] == [
        (0.2, 100_000, 3, State.DUE), (0.2, 100_000, 4, State.DUE),
    ]  # fmt: skip


def test_a_learning_rate_that_fails_is_not_chosen_and_where_all_fail_nothing_follows() -> None:
    study = study_of(learning_rates=[0.1, 0.2], tune_tokens=7, layers=["full"])
    plan = plan_study(study, [TEXT])
    tuning = [step for step in plan({}, ()) if step.title.startswith("tuning")]
    done = {ids_of(tuning[0])[0]: trained(tuning[0], 120)}
    failed = set(ids_of(tuning[1]))
    lower = plan(done, failed)[3]
    assert rates_of([lower]) == [(0.05, 7, 0, State.DUE)], "the failed rate is the upper bound"
    done[ids_of(lower)[0]] = trained(lower, 130)
    assert rates_of(plan(done, failed))[3:] == [(0.1, 100_000, 0, State.DUE)]
    failed |= set(ids_of(tuning[0]))
    assert rates_of(plan({}, failed))[2:] == [(0.1, 100_000, 0, State.NO_USABLE_RATE)]


def test_layers_are_timed_together_or_not_at_all() -> None:
    trials = speed_job("full", "nce", "sampled").trials
    plan = plan_timing([trials], 1.0, Limits())
    ids = [trial_id(trial) for trial in trials]
    done = {trial_id(trial): speed_record("x", 1, 1.0) for trial in trials}
    assert plan(done, ())[0].state is State.DONE
    del done[ids[0]]
    (step,) = plan(done, ())
    assert (step.state, ids_of(step)) == (State.DUE, ids)
    bad, step = plan(done, {ids[0]})
    assert (bad.state, ids_of(bad)) == (State.FAILED, ids[:1])
    assert (step.state, ids_of(step)) == (State.DONE, ids[1:])
    assert [step.state for step in plan({}, set(ids))] == 3 * [State.FAILED]


def test_a_study_runs_to_its_end_and_is_not_run_twice(tmp_path: Path) -> None:
    study = study_of(learning_rates=[0.1, 0.2, 0.4], tune_tokens=7)
    plan = plan_study(study, [TEXT])
    outcome, protocol = go(tmp_path, plan, slots=2)
    assert outcome == Outcome(done=10, failures={}, no_usable_rate=0)
    chosen = {
        job.trial.layer: job.trial.learning_rate
        for job in protocol.started_jobs
        if isinstance(job, TrainJob) and job.trial.max_tokens == 100_000
    }
    assert chosen == {"full": 0.2, "nce": 0.2}  # as the worker has it
    assert isinstance(protocol.started_jobs[-1], SpeedJob)
    again, protocol = go(tmp_path, plan)
    assert again == outcome
    assert protocol.started_jobs == []
    _, protocol = go(tmp_path, plan, slots=2, again=True)
    assert len(protocol.started_jobs) == 9


def test_one_that_goes_wrong_harms_no_other(tmp_path: Path) -> None:
    layers = ["crashes", "full", "diverges", "forgets", "nce"]
    plan = plan_study(study_of(layers=layers, time_budget=0), [TEXT])
    outcome, _ = go(tmp_path, plan, slots=2)
    assert outcome.done == 2
    causes = {one.configuration["layer"]: one.cause for one in outcome.failures.values()}
    assert causes == {"crashes": "crash", "diverges": "diverged", "forgets": "error"}
    assert read_store(tmp_path).failures == outcome.failures
    again, protocol = go(tmp_path, plan)
    assert again == outcome
    assert protocol.started_jobs == []
    _, protocol = go(tmp_path, plan, retry_failed=True)
    assert len(protocol.started_jobs) == 3


def test_what_was_killed_from_outside_is_tried_by_the_next_command(tmp_path: Path) -> None:
    plan = plan_study(study_of(layers=["is killed"], time_budget=0), [TEXT])
    for _ in range(2):
        outcome, protocol = go(tmp_path, plan)
        assert [one.cause for one in outcome.failures.values()] == ["killed"]
        assert len(protocol.started_jobs) == 1


class KillsRate(LocalExecutor):
    """An executor under which the jobs of one learning rate are killed."""

    def __init__(self, store: Path, rate: float) -> None:
        super().__init__(store, 1, WORKER)
        self.rate = rate
        self.killed: list[Report | JobExit] = []

    def submit(self, job: Job) -> None:
        if isinstance(job, TrainJob) and job.trial.learning_rate == self.rate:
            failure = Failure("killed", "killed from outside by SIGKILL", 1.0, "")
            self.killed.append(JobExit(job_id(job), "failed", failure))
        else:
            super().submit(job)

    def wait(self, seconds: float) -> list[Report | JobExit]:
        if not self.killed:
            return super().wait(seconds)
        told, self.killed = self.killed, []
        return told


def test_no_learning_rate_is_chosen_while_one_is_still_to_be_tried(tmp_path: Path) -> None:
    """Else a study with a trial that was killed would train what an undisturbed one does not."""
    rates = [0.1, 0.2, 0.4]
    study = study_of(learning_rates=rates, tune_tokens=7, layers=["full"], time_budget=0)
    plan = without_ngrams(plan_study(study, [TEXT]))
    with KillsRate(tmp_path, rate=0.2) as executor:
        outcome = run(plan, tmp_path, executor)
    assert (outcome.done, len(outcome.failures), outcome.waiting) == (2, 1, 1)
    assert not outcome.complete
    outcome, protocol = go(tmp_path, plan)
    assert outcome == Outcome(done=4, failures={}, no_usable_rate=0)
    assert [
        (job.trial.learning_rate, job.trial.max_tokens)
        for job in protocol.started_jobs
        if isinstance(job, TrainJob)
    ] == [(0.2, 7), (0.2, 100_000)]


def test_what_another_study_has_finished_meanwhile_is_not_run_again(tmp_path: Path) -> None:
    plan = without_ngrams(plan_study(study_of(layers=["hangs"], time_budget=0), [TEXT]))
    (step,) = plan({}, ())

    class FinishesBefore(Watcher):
        def planned(self, steps: Sequence[Step]) -> None:
            if not record_path(tmp_path, ids_of(step)[0]).exists():
                write_record(tmp_path, trained(step))

    with LocalExecutor(tmp_path, 1, WORKER) as executor:
        assert run(plan, tmp_path, executor, [FinishesBefore()]).complete


def test_the_others_are_timed_without_the_one_that_crashes(tmp_path: Path) -> None:
    trials = speed_job("full", "crashes", "nce").trials
    outcome, protocol = go(tmp_path, plan_timing([trials], 1.0, Limits()))
    assert outcome.done == 2
    assert list(outcome.failures) == [trial_id(trials[1])]
    assert [len(job.trials) for job in protocol.started_jobs if isinstance(job, SpeedJob)] == [3, 2]


class LooksInVain(LocalExecutor):
    """Nothing has happened at the first looks at a job."""

    looks = 0

    def wait(self, seconds: float) -> list[Report | JobExit]:
        self.looks -= 1
        return [] if self.looks >= 0 else super().wait(seconds)


def test_waiting_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To name all trials of a large study four times a second took 7 % of a core."""
    named: list[Step] = []

    def ids_named(step: Step) -> list[str]:
        named.append(step)
        return ids_of(step)

    monkeypatch.setattr("softmax_bench.study.run.session.ids_of", ids_named)
    plan = without_ngrams(plan_study(study_of(time_budget=0, layers=["full"]), [TEXT]))
    counts = []
    for looks in (0, 50):
        named.clear()
        with LooksInVain(tmp_path / str(looks), 2, WORKER) as executor:
            executor.looks = looks
            assert run(plan, tmp_path / str(looks), executor).complete
        counts.append(len(named))
    assert counts[0] == counts[1]


def test_a_damaged_record_is_set_aside_and_its_trial_run_again(tmp_path: Path) -> None:
    plan = plan_study(study_of(layers=["full"], time_budget=0), [TEXT])
    go(tmp_path, plan)
    (identity,) = read_store(tmp_path).records
    record_path(tmp_path, identity).write_bytes(b'{"kind": "tra')
    outcome, protocol = go(tmp_path, plan)
    assert outcome.complete
    assert "was set aside" in protocol.notes[0]
    assert list(read_store(tmp_path).records) == [identity]


def test_no_space_left_stops_the_study_and_loses_nothing(tmp_path: Path) -> None:
    plan = plan_study(study_of(layers=["full", "fills the disk", "nce"], time_budget=0), [TEXT])
    with pytest.raises(DiskFullError, match="free some space and repeat the command"):
        go(tmp_path, plan)
    contents = read_store(tmp_path)
    assert len(contents.records) == 1
    assert contents.failures == {}


def test_what_another_study_has_in_work_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softmax_bench.study.run.session._ELSEWHERE_SECONDS", 0.1)
    plan = plan_study(study_of(layers=["hangs"], time_budget=0), [TEXT])
    (step,) = without_ngrams(plan)({}, ())
    other = JobProcess(step.job, tmp_path, WORKER)
    looked: list[Step] = []

    class FinishesElsewhere(Watcher):
        def postponed(self, step: Step) -> None:
            looked.append(step)
            if len(looked) == 2:
                write_record(tmp_path, trained(step))

    try:
        with LocalExecutor(tmp_path, 1, WORKER) as executor:
            outcome = run(without_ngrams(plan), tmp_path, executor, [FinishesElsewhere()])
    finally:
        other.kill()
    assert outcome.complete
    assert len(looked) == 2


def test_old_results_of_other_studies_do_not_count(tmp_path: Path) -> None:
    write_record(tmp_path, ngram_record(50, 10.0))
    write_record(tmp_path, speed_record("full", 10, 1.0))
    plan = plan_study(study_of(layers=["full"], time_budget=0), [TEXT])
    assert go(tmp_path, plan)[0].done == 1


def test_trials_are_what_they_were() -> None:
    """The identity of a model decides what is done already: it must not change by accident."""
    study = study_of(
        layers=["full"], time_budget=0, initial_accumulator_value=0, warmup_tokens=0, clip_norm=5
    )
    (step,) = without_ngrams(plan_study(study, [TEXT]))({}, ())
    assert isinstance(step.job, TrainJob)
    assert isinstance(step.job.trial, TrainTrial)
    assert trial_id(step.job.trial) == "3913bc27016f49b9"
    speed = SpeedTrial(
        layer="full", vocab_size=10, hidden_size=2, num_tokens=3, optimizer="sgd", clip_norm=5.0,
        seed=0, threads=1, device="cpu", dtype="float32",
    )  # fmt: skip
    assert trial_id(speed) == "5415e7e1c88fd069"
