"""Options of the commands that take a study: the most common ones; ``--set`` covers the rest."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softmax_bench.cli.options import LAYERS
from softmax_bench.errors import SoftmaxBenchError

if TYPE_CHECKING:
    from rich.console import Console

    from softmax_bench.study.study import Study
    from softmax_bench.study.texts import TextSummary


@dataclass(frozen=True)
class StudyRequest:
    """A study, the command line's changes to it, and where its corpora and results are."""

    study: Annotated[
        str,
        typer.Argument(
            metavar="[STUDY]",
            help="A TOML file, or an included study: quick, ptb, zaremba, vocabulary-sweep, peers.",
        ),
    ] = "quick"
    corpus: Annotated[
        str | None,
        typer.Option(
            help="Corpora: 'synthetic', a text file, or a folder with train, valid and test."
        ),
    ] = None
    vocab_sizes: Annotated[
        str | None,
        typer.Option(help="Vocabulary sizes, separated by commas; 'all' keeps every type."),
    ] = None
    layers: Annotated[str | None, LAYERS] = None
    learning_rates: Annotated[
        str | None,
        typer.Option(help="Learning rates; if several are given, each layer uses its best one."),
    ] = None
    max_tokens: Annotated[
        str | None, typer.Option(help="Training budgets in tokens, separated by commas.")
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other value of the study; repeatable."
        ),
    ] = None
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of corpora, for a machine without internet; $SOFTMAX_BENCH_DATA by "
            "default."
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results, runs/STUDY by default; existing results are kept."
        ),
    ] = None

    def read(self, settings: Sequence[str] = ()) -> Study:
        """The study with these changes; ``settings`` are applied last.

        Raises:
            SoftmaxBenchError: There is no such study, or it is invalid.
        """
        from softmax_bench.study.study_file import Change, load_study, parse_change

        typed = {
            ("--corpus", "corpora"): self.corpus,
            ("--vocab-sizes", "vocab_sizes"): self.vocab_sizes,
            ("--layers", "layers"): self.layers,
            ("--learning-rates", "learning_rates"): self.learning_rates,
            ("--max-tokens", "max_tokens"): self.max_tokens,
        }
        changes = [
            Change(option, key, text) for (option, key), text in typed.items() if text is not None
        ]
        changes += map(parse_change, [*(self.settings or []), *settings])
        return load_study(self.study, changes)

    @property
    def store(self) -> Path:
        """The folder of the results."""
        return self.out or Path("runs") / Path(self.study).stem


def study_command(command: Callable[..., None]) -> Callable[..., None]:
    """Replace ``command``'s first argument, a request, by the options that make one."""
    shared = inspect.signature(StudyRequest, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(StudyRequest(**{name: given.pop(name) for name in shared}), **given)

    run.__signature__ = inspect.Signature([*shared.values(), *own])  # type: ignore[attr-defined]
    return run


def read_texts(study: Study, data_dir: Path | None, console: Console) -> list[TextSummary]:
    """Inspect the texts of a study and print their sizes.

    Raises:
        SoftmaxBenchError: There is no such folder or text, it has too few types for the
            vocabulary, or the vocabulary does not fit into memory.
    """
    if data_dir is not None and not data_dir.is_dir():
        raise SoftmaxBenchError(f"--data-dir: there is no folder {data_dir}")
    from softmax_bench.study.check import class_limit_mistake, sample_notes
    from softmax_bench.study.plan.grid import NGRAM_MOST_TOKENS, sources
    from softmax_bench.study.texts import summarise_text

    if too_large := class_limit_mistake(study):
        raise SoftmaxBenchError(f"vocab_sizes: {too_large}")

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    texts: list[TextSummary] = []
    for source in sources(study, data_dir):
        text = summarise_text(source)
        if text.how_split and text.name not in {known.name for known in texts}:
            say(f"{text.name}: {text.how_split}")
        texts.append(text)
        say(
            f"{text.name}: V={text.vocab_size:,}; predicted tokens: train {text.train_tokens:,}, "
            f"valid {text.valid_tokens:,}, test {text.test_tokens:,} "
            f"({text.unknown_share:.1%} <unk>)"
        )
        for doubt in text.doubts:
            say(f"Warning: {text.name} at V = {text.vocab_size:,}: {doubt}.", "yellow")
        for note in sample_notes(study.layers, text.vocab_size):
            say(f"{note}.")
        if text.train_tokens > NGRAM_MOST_TOKENS:
            say(
                f"{text.name}: the n-gram model of the whole text is skipped, because it needs too "
                f"much memory for more than {NGRAM_MOST_TOKENS:,} training tokens"
            )
    return texts
