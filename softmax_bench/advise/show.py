"""Advice for the terminal: the answer first, then the ranking, then what was ruled out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from softmax_bench.advise.advice import Advice, as_fast_as, code, reasons, recommended
from softmax_bench.advise.penalties import CHANCE
from softmax_bench.advise.question import Question
from softmax_bench.advise.steps import Steps
from softmax_bench.report.style import number_text, terminal_table

if TYPE_CHECKING:
    from rich.console import Console


def print_advice(
    question: Question, advice: Sequence[Advice], steps: Steps, console: Console
) -> None:
    """Print the ranked layers, and how far to trust the ranking."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    frequency = "by Zipf's law" if question.counts is None else "by your counts"
    say(
        f"V = {question.vocab_size:,} classes {frequency}, H = {question.hidden_size:,}, "
        f"N = {question.num_tokens:,} targets per step. {steps.trust}\n"
    )
    choice = recommended(advice)
    if choice is not None:
        for sentence in _answer(choice, as_fast_as(choice, advice), steps):
            say(sentence)
        for sentence in reasons(choice, advice):
            say(f"* {sentence}")
        say("")
        for line in code(choice).splitlines():
            console.out(f"    {line}", highlight=False)
    _print_table([one for one in advice if not one.objection], choice, console)
    far = [one.layer for one in advice if one.step.outside]
    if far:
        say(
            f"Extrapolated far beyond the timed sizes (hence the wide intervals): "
            f"{', '.join(far)}. Use --measure for a real timing."
        )
    for one in advice:
        if one.doubt:
            say(f"{one.layer} {one.doubt}: try it at your size before you use it.")
    for objection, layers in _ruled_out(advice).items():
        say(f"Ruled out because it {objection}: {', '.join(layers)}.")


_WIDE = 4.0
"""A time whose interval spans more than this factor is too uncertain to choose by."""


def _answer(choice: Advice, others: Sequence[Advice], steps: Steps) -> Iterator[str]:
    costs = f"{_time(choice)} per step, {_memory(choice)} of memory"
    if steps.disturbed:
        costs += f" (unreliable: layers were timed while {steps.disturbed})"
    if not others:
        yield f"Use {choice.layer}: {costs}."
    else:
        names = ", ".join(one.layer for one in others[:-1])
        listed = f"{names + ' or ' if names else ''}{others[-1].layer}"
        decision = "" if steps.measured else "; --measure decides"
        yield (
            f"Use {choice.layer}: {costs}. Within the intervals, {listed} may be as fast{decision}."
        )
    if choice.step.high > _WIDE * choice.step.low:
        yield (
            "These times are too uncertain: repeat the command on a quiet machine."
            if steps.measured
            else "This prediction is too uncertain: use --measure to time the layers at your size."
        )


def _ruled_out(advice: Sequence[Advice]) -> dict[str, list[str]]:
    """Excluded layers, grouped by the reason."""
    by_reason: dict[str, list[str]] = {}
    for one in advice:
        if one.objection:
            by_reason.setdefault(one.objection, []).append(
                f"{one.layer} ({_seconds(one.step.seconds)})"
            )
    return by_reason


def _print_table(advice: Sequence[Advice], choice: Advice | None, console: Console) -> None:
    from rich.text import Text

    table = terminal_table()
    table.add_column("layer", overflow="fold")
    for heading in ("step", "from", "to", "memory", "perplexity"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in advice:
        penalty = "not known"
        if one.penalty is not None:
            penalty = f"{one.penalty.change:+z.1%}"
            if 0 < abs(one.penalty.change) <= CHANCE:
                penalty += ", chance"
            elif not one.penalty.is_near(one.work.vocab_size):
                penalty += f" at {one.penalty.vocab_size:,}"
        cells = [
            one.layer,
            _seconds(one.step.seconds),
            _seconds(one.step.low),
            _seconds(one.step.high),
            _memory(one),
            penalty,
        ]
        table.add_row(*map(Text, cells), style="bold" if one is choice else "")
    console.print(table)


def _time(one: Advice) -> str:
    step = one.step
    return f"{_seconds(step.seconds)} ({_seconds(step.low)} to {_seconds(step.high)})"


def _seconds(seconds: float) -> str:
    return f"{number_text(seconds)} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _memory(one: Advice) -> str:
    amount = one.memory_bytes
    return f"{amount / 1e9:.2f} GB" if amount >= 1e9 else f"{amount / 1e6:.3g} MB"
