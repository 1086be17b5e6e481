"""Which layer to use at a given size: the layers ranked, with reasons in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from softmax_bench.advise.model import Prediction
from softmax_bench.advise.needs import NEEDS, unmet_need
from softmax_bench.advise.penalties import Penalty, expected_penalty
from softmax_bench.advise.workload import Workload
from softmax_bench.layers import parse_spec
from softmax_bench.measure.memory import OPTIMIZER_STATES


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What rules a layer out."""

    memory_bytes: float | None = None
    needs: Sequence[str] = ()
    penalty: float = 0.05
    """Largest acceptable increase of perplexity over full softmax, as a fraction."""


@dataclass(frozen=True)
class Advice:
    """What is to be said of one layer."""

    work: Workload
    step: Prediction
    memory_bytes: int
    """Parameters, tables, the optimiser's state, gradients and everything else at the peak."""
    penalty: Penalty | None
    """In perplexity, of the stored study nearest in V; None where no study had the layer."""
    objection: str
    """Why the layer is ruled out, in words; empty if it is not."""
    doubt: str = ""
    """Why it may not do, in words: a study speaks against it, but not for certain."""

    @property
    def layer(self) -> str:
        """The layer's specification."""
        return self.work.layer


def advise(
    loads: Sequence[Workload],
    steps: Mapping[str, Prediction],
    limits: Limits,
    optimizer: str,
) -> list[Advice]:
    """Rank layers by the time of a step: those that will do, those in doubt, those ruled out.

    Args:
        loads: The step of each layer at the size in question.
        steps: By layer, its time and memory.
        limits: What rules a layer out.
        optimizer: Name of the rule, for the memory of its state.
    """
    all_of_them = []
    for work in loads:
        step = steps[work.layer]
        kept = work.parameter_bytes * (1 + OPTIMIZER_STATES[optimizer]) + work.table_bytes
        memory = kept + step.peak_bytes
        penalty = expected_penalty(work.layer, work.vocab_size)
        objection = _objection(work, memory, penalty, limits)
        doubt = "" if objection else _doubt(work, penalty, limits)
        all_of_them.append(Advice(work, step, memory, penalty, objection, doubt))
    return sorted(
        all_of_them, key=lambda one: (one.objection != "", one.doubt != "", one.step.seconds)
    )


def recommended(advice: Sequence[Advice]) -> Advice | None:
    """The fastest that is not ruled out and whose perplexity a study knows; else the fastest."""
    possible = [one for one in advice if not one.objection]
    known = [one for one in possible if one.penalty is not None]
    return next(iter(known or possible), None)


def not_told_apart(choice: Advice, advice: Sequence[Advice]) -> list[Advice]:
    """The others that may be as fast, by the intervals, and of which as much is known."""
    return [
        one
        for one in advice
        if one is not choice
        and not one.objection
        and one.doubt == choice.doubt
        and (one.penalty is None) == (choice.penalty is None)
        and one.step.low <= choice.step.high
    ]


def _objection(work: Workload, memory: int, penalty: Penalty | None, limits: Limits) -> str:
    need = unmet_need(work.layer, limits.needs)
    if need is not None:
        return f"lacks {NEEDS[need].what}"
    if limits.memory_bytes is not None and memory > limits.memory_bytes:
        return f"takes more than {limits.memory_bytes / 1e9:.3g} GB of memory"
    if (
        penalty is not None
        and penalty.is_near(work.vocab_size)
        and penalty.change - penalty.chance > limits.penalty
    ):
        return f"raised perplexity by more than {limits.penalty:.0%} on {penalty.corpus}"
    return ""


def _doubt(work: Workload, penalty: Penalty | None, limits: Limits) -> str:
    """Of a penalty that was measured at another size, or that may be chance."""
    if penalty is None or penalty.change <= max(limits.penalty, penalty.chance):
        return ""
    return f"raised perplexity by {penalty.change:.0%} at V = {penalty.vocab_size:,}"


def reasons(choice: Advice, advice: Sequence[Advice]) -> list[str]:
    """Why this layer, and what to know before using it: one sentence each."""
    layer, _ = parse_spec(choice.layer)
    said = [f"It scores {layer.scores}. Good for {layer.good_for}."]
    full = next((one for one in advice if one.layer == "full"), None)
    if full is not None and full is not choice:
        said.append(
            f"A step takes {choice.step.seconds / full.step.seconds:.1%} of full softmax's time "
            f"and {choice.memory_bytes / full.memory_bytes:.0%} of its memory."
        )
    if choice.penalty is None:
        said.append("No stored study has trained it, so its cost in perplexity is unknown.")
    elif full is None or choice is not full:
        penalty = choice.penalty
        found = (
            f"was no different for certain ({penalty.change:+.1%}, within chance)"
            if abs(penalty.change) <= penalty.chance
            else f"was {penalty.change:+.1%}"
        )
        said.append(
            f"Perplexity {found} against full softmax's in {penalty}. Yours will differ: with the "
            "data, the vocabulary and the length of training."
        )
    if choice.work.row_sparse:
        said.append(
            "The time is with row-sparse gradients (sparse=True): train it with "
            "softmax_bench.lm.make_optimizer, or with SGD, Adagrad or SparseAdam of torch."
        )
    quicker = [
        one.layer
        for one in advice
        if one.step.seconds < choice.step.seconds and one.penalty is None and not one.objection
    ]
    if choice.penalty is not None and quicker:
        said.append(
            f"{', '.join(quicker)}: faster still, but no stored study has their perplexity."
        )
    return said


def code(choice: Advice) -> str:
    """The lines that put the layer into a model."""
    work = choice.work
    sparse = ", sparse=True" if work.row_sparse else ""
    return (
        "from softmax_bench import create_layer\n"
        f"layer = create_layer({work.layer!r}, {work.hidden_size}, {work.vocab_size}, counts"
        f"{sparse})  # counts (V,): of the classes\n"
        "loss = layer(hidden, target)  # hidden (..., H), target (...)"
    )
