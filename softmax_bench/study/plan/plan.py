"""A pure function from stored results to what remains to be done.

Called again after every trial, it returns the steps that are due. So an interrupted study continues
with the same steps as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from softmax_bench.records.record import Record
from softmax_bench.records.trial import FidelityTrial, SpeedTrial, trial_id
from softmax_bench.study.jobs.job import FidelityJob, Job, Limits, SpeedJob, Text, trials_of

Done = Mapping[str, Record]
"""Results by the identity of their trials."""
Failed = Collection[str]
"""Identities of the trials that are not to be retried."""


class State(StrEnum):
    """The state of a step."""

    DONE = "done"
    FAILED = "failed"
    DUE = "due"
    WAITING = "waiting"
    """It waits for the learning rate, which other steps find."""
    NO_USABLE_RATE = "no usable rate"
    """Every learning rate failed."""


@dataclass(frozen=True)
class Step:
    """The work of one process."""

    title: str
    job: Job
    """Its job; while the step waits, with a placeholder for the best learning rate."""
    state: State


Plan = Callable[[Done, Failed], Sequence[Step]]
"""The steps in order; each trial belongs to one of them."""


def ids_of(step: Step) -> list[str]:
    """Identities of the trials of a step."""
    return [trial_id(trial) for trial in trials_of(step.job)]


def state_of(identity: str, done: Done, failed: Failed) -> State:
    """The state of a trial that waits for nothing."""
    if identity in done:
        return State.DONE
    return State.FAILED if identity in failed else State.DUE


def plan_timing(
    groups: Sequence[Sequence[SpeedTrial]], budget_seconds: float, limits: Limits
) -> Plan:
    """Steps that time each group of layers against each other."""

    def steps(done: Done, failed: Failed) -> list[Step]:
        return [
            step
            for group in groups
            for step in time_steps(group, budget_seconds, limits, done, failed)
        ]

    return steps


def time_steps(
    trials: Sequence[SpeedTrial],
    budget_seconds: float,
    limits: Limits,
    done: Done,
    failed: Failed,
    text: Text | None = None,
) -> Iterator[Step]:
    """Time layers against each other, and those that have failed separately.

    They are timed again unless all of them are stored, because a layer timed later would not have
    alternated with the others.
    """

    def step(trials: Sequence[SpeedTrial], state: State) -> Step:
        what = trials[0].layer if len(trials) == 1 else f"{len(trials)} layers"
        return Step(
            title=f"timing {what} V={trials[0].vocab_size:,}",
            job=SpeedJob(
                trials=tuple(trials), budget_seconds=budget_seconds, limits=limits, text=text
            ),
            state=state,
        )

    not_failed = [trial for trial in trials if trial_id(trial) not in failed]
    yield from (step([trial], State.FAILED) for trial in trials if trial not in not_failed)
    if not_failed:
        stored = all(trial_id(trial) in done for trial in not_failed)
        yield step(not_failed, State.DONE if stored else State.DUE)


def plan_fidelity(trials: Sequence[FidelityTrial], text: Text, limits: Limits) -> Plan:
    """One step for the layers not yet compared with the model that all have in common."""

    def step(trials: Sequence[FidelityTrial], state: State) -> Step:
        return Step(
            title=f"fidelity of {', '.join(trial.layer for trial in trials)}",
            job=FidelityJob(trials=tuple(trials), text=text, limits=limits),
            state=state,
        )

    def steps(done: Done, failed: Failed) -> list[Step]:
        states = {trial: state_of(trial_id(trial), done, failed) for trial in trials}
        due = [trial for trial in trials if states[trial] is State.DUE]
        settled = [step([trial], states[trial]) for trial in trials if trial not in due]
        return [*settled, step(due, State.DUE)] if due else settled

    return steps
