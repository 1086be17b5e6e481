"""Options of the commands about studies: the few that people type most; the rest is ``--set``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softmax_bench.errors import SoftmaxBenchError

if TYPE_CHECKING:
    from rich.console import Console

    from softmax_bench.study.study import Study
    from softmax_bench.study.texts import KnownText

StudyName = Annotated[
    str,
    typer.Argument(
        metavar="[STUDY]",
        help="A TOML file, or an included study: quick, ptb, zaremba, vocabulary-sweep, peers.",
    ),
]
CorpusOption = Annotated[
    str | None,
    typer.Option(help="Corpora: 'synthetic', a file, or a folder with train, valid and test."),
]  # fmt: skip
VocabSizesOption = Annotated[
    str | None, typer.Option(help="Vocabulary sizes, separated by commas; 'all' keeps every type.")
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        help="Output layers, separated by commas: names or package.module:Class, options in "
        "parentheses; or 'all'."
    ),
]
RatesOption = Annotated[
    str | None,
    typer.Option(help="Learning rates; with several, each layer uses the one that suits it best."),
]
TokensOption = Annotated[
    str | None, typer.Option(help="Training budgets in tokens, separated by commas.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other value of the study; repeatable."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of corpora, for a machine without internet; $SOFTMAX_BENCH_DATA by default."
    ),
]
StudyOut = Annotated[
    Path | None,
    typer.Option(help="Folder of the results, runs/STUDY by default; existing results are kept."),
]


def read_study(
    name: str,
    *,
    corpus: str | None,
    vocab_sizes: str | None,
    layers: str | None,
    learning_rates: str | None,
    max_tokens: str | None,
    settings: list[str] | None,
) -> Study:
    """The study that a command line asks for.

    Raises:
        SoftmaxBenchError: There is no such study, or something in it is wrong.
    """
    from softmax_bench.study.study_file import Change, load_study, parse_change

    typed = {
        ("--corpus", "corpora"): corpus,
        ("--vocab-sizes", "vocab_sizes"): vocab_sizes,
        ("--layers", "layers"): layers,
        ("--learning-rates", "learning_rates"): learning_rates,
        ("--max-tokens", "max_tokens"): max_tokens,
    }
    changes = [
        Change(option, key, text) for (option, key), text in typed.items() if text is not None
    ]
    return load_study(name, [*changes, *map(parse_change, settings or [])])


def read_texts(study: Study, data_dir: Path | None, console: Console) -> list[KnownText]:
    """Look into the texts of a study and print what they are.

    Raises:
        SoftmaxBenchError: There is no such text, it does not offer such a vocabulary, or that has
            no room in memory.
    """
    from softmax_bench.study.check import memory_mistake, sample_notes
    from softmax_bench.study.plan.grid import NGRAM_MOST_TOKENS, sources
    from softmax_bench.study.texts import know_text

    if too_large := memory_mistake(study):
        raise SoftmaxBenchError(f"vocab_sizes: {too_large}")

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    texts: list[KnownText] = []
    for source in sources(study, data_dir):
        text = know_text(source)
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
                f"{text.name}: without an n-gram model, which would need too much memory for more "
                f"than {NGRAM_MOST_TOKENS:,} training tokens"
            )
    return texts


def store_of(name: str, out: Path | None) -> Path:
    """Where the results of a study go."""
    return Path("runs") / Path(name).stem if out is None else out
