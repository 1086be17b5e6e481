"""Which layer to use at a given size: the layers ranked, with reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from softmax_bench.advise.model import Prediction
from softmax_bench.advise.needs import NEEDS, unmet_need
from softmax_bench.advise.penalties import CHANCE, NEAR, Penalty, expected_penalty
from softmax_bench.advise.workload import Workload
from softmax_bench.layers import parse_spec
from softmax_bench.measure.memory import OPTIMIZER_STATES


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that rule a layer out."""

    memory_bytes: float | None = None
    needs: Sequence[str] = ()
    penalty: float = 0.05
    """Largest acceptable increase of perplexity over full softmax, as a fraction."""


@dataclass(frozen=True)
class Advice:
    """The verdict on one layer."""

    work: Workload
    step: Prediction
    memory_bytes: int
    """Parameters, tables, the optimiser's state, gradients and everything else at the peak."""
    penalty: Penalty | None
    """Perplexity penalty in the stored study that answers best; None if none has the layer."""
    objection: str
    """Why the layer is ruled out; empty if it is not."""
    doubt: str = ""
    """Why the layer may be unsuitable: a study suggests it, but does not establish it."""

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
    """Rank layers by the time of a step: suitable ones, then doubtful ones, then excluded ones.

    Args:
        loads: Each layer's step at the size in question.
        steps: Time and memory by layer.
        limits: What rules a layer out.
        optimizer: Name of the optimiser, which determines the memory of its state.
    """
    verdicts = []
    for work in loads:
        step = steps[work.layer]
        permanent = work.parameter_bytes * (1 + OPTIMIZER_STATES[optimizer]) + work.table_bytes
        memory = permanent + step.peak_bytes
        penalty = expected_penalty(work.layer, work.vocab_size)
        objection, doubt = _verdict(work, memory, penalty, limits)
        verdicts.append(Advice(work, step, memory, penalty, objection, doubt))
    return sorted(
        verdicts, key=lambda one: (one.objection != "", one.doubt != "", one.step.seconds)
    )


def recommended(advice: Sequence[Advice]) -> Advice | None:
    """The fastest layer not ruled out whose perplexity a study knows; else the fastest one."""
    possible = [one for one in advice if not one.objection]
    studied = [one for one in possible if one.penalty is not None]
    return next(iter(studied or possible), None)


def as_fast_as(choice: Advice, advice: Sequence[Advice]) -> list[Advice]:
    """Layers that may be just as fast, by the intervals, with perplexities known as well."""
    return [
        one
        for one in advice
        if one is not choice
        and not one.objection
        and one.doubt == choice.doubt
        and (one.penalty is None) == (choice.penalty is None)
        and one.step.low <= choice.step.high
    ]


def _verdict(
    work: Workload, memory: int, penalty: Penalty | None, limits: Limits
) -> tuple[str, str]:
    """Why the layer is ruled out, and why it may be unsuitable; empty if there is no reason."""
    need = unmet_need(work.layer, limits.needs)
    if need is not None:
        return f"lacks {NEEDS[need].what}", ""
    if limits.memory_bytes is not None and memory > limits.memory_bytes:
        return f"takes more than {limits.memory_bytes / 1e9:.3g} GB of memory", ""
    most = max(limits.penalty, CHANCE)
    if penalty is None or penalty.change <= most:
        return "", ""
    if penalty.is_near(work.vocab_size):
        return f"raised perplexity by more than {100 * most:.3g}% on {penalty.corpus}", ""
    return "", f"raised perplexity by {penalty.change:.0%} at V = {penalty.vocab_size:,}"


def reasons(choice: Advice, advice: Sequence[Advice]) -> list[str]:
    """Why to use this layer, and what to know before using it, one sentence each."""
    layer, _ = parse_spec(choice.layer)
    sentences = [f"It scores {layer.scores}. Good for {layer.good_for}."]
    full = next((one for one in advice if one.layer == "full"), None)
    if full is not None and full is not choice:
        sentences.append(
            f"A step takes {choice.step.seconds / full.step.seconds:.1%} of full softmax's time "
            f"and {choice.memory_bytes / full.memory_bytes:.0%} of its memory."
        )
    if choice.penalty is None:
        sentences.append("No stored study has trained it, so its cost in perplexity is unknown.")
    elif full is None or choice is not full:
        penalty = choice.penalty
        direction = "above" if penalty.change > 0 else "below"
        comparison = f"was {abs(penalty.change):.1%} {direction}"
        if abs(penalty.change) <= CHANCE:
            comparison = f"did not differ significantly ({penalty.change:+z.1%}) from"
        sentences.append(
            f"Its perplexity {comparison} full softmax's in {penalty}. Yours will depend on the "
            "data, the vocabulary and the length of training."
        )
        if not penalty.is_near(choice.work.vocab_size):
            sentences.append(
                "That is an extrapolation: no stored study of it has a vocabulary within a factor "
                f"of {NEAR:g} of yours."
            )
    if choice.work.row_sparse:
        sentences.append(
            "The time assumes row-sparse gradients (sparse=True), so train it with "
            "softmax_bench.lm.make_optimizer, or with torch's SGD, Adagrad or SparseAdam."
        )
    quicker = [
        one.layer
        for one in advice
        if one.step.seconds < choice.step.seconds and one.penalty is None and not one.objection
    ]
    if choice.penalty is not None and quicker:
        sentences.append(f"Faster still, but without a known perplexity: {', '.join(quicker)}.")
    return sentences


def code(choice: Advice) -> str:
    """Code that puts the layer into a model."""
    work = choice.work
    sparse = ", sparse=True" if work.row_sparse else ""
    return (
        "from softmax_bench import create_layer\n"
        f"layer = create_layer({work.layer!r}, {work.hidden_size}, {work.vocab_size}, counts"
        f"{sparse})  # class counts (V,)\n"
        "loss = layer(hidden, target)  # hidden (..., H), target (...)"
    )
