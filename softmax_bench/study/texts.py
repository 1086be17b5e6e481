"""The texts of a study: identified by their content, and loaded where they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from softmax_bench.corpora import Corpus, load_corpus
from softmax_bench.corpora.states import States, load_states
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.records.result import FEWEST_TOKENS, MOST_UNKNOWN
from softmax_bench.records.trial import GIVEN
from softmax_bench.study.jobs.job import Text
from softmax_bench.study.study import Study

LONGEST_WORDS = 11
"""Mean word length beyond which a text has hardly been split into words."""


@dataclass(frozen=True)
class TextSummary:
    """What planning needs of a text: its identity, its sizes and doubts about it."""

    source: Text
    name: str
    sha256: str
    vocab_size: int
    train_tokens: int
    valid_tokens: int
    test_tokens: int
    unknown_share: float
    """Share of unknown words in the test text."""
    how_split: str = ""
    """How the text was split, in words, if it came without splits."""
    doubts: tuple[str, ...] = ()
    """Why results on this text may be meaningless, one sentence each."""


def summarise_text(source: Text) -> TextSummary:
    """Load a text, and describe it.

    Raises:
        SoftmaxBenchError: There is no such text, or it has too few types for the vocabulary.
    """
    corpus = _load(source)
    return TextSummary(
        source=source,
        name=corpus.name,
        sha256=corpus.sha256,
        vocab_size=corpus.vocab_size,
        train_tokens=len(corpus.train),
        valid_tokens=len(corpus.valid),
        test_tokens=len(corpus.test),
        unknown_share=corpus.unknown_tokens("test") / len(corpus.test),
        how_split=corpus.how_split,
        doubts=tuple(_doubts(corpus)),
    )


def _doubts(corpus: Corpus) -> Iterator[str]:
    if corpus.letters_a_word > LONGEST_WORDS:
        yield (
            f"its words have {corpus.letters_a_word:.0f} letters on average: words are what white "
            "space separates, so Chinese, Japanese or Thai must be cut into words first"
        )
    for split in ("valid", "test"):
        tokens, unknown = len(corpus.split(split)), corpus.unknown_tokens(split)
        if tokens < FEWEST_TOKENS:
            yield f"its {split} text has only {tokens:,} tokens: perplexity on it is mostly chance"
        elif unknown > MOST_UNKNOWN * tokens:
            yield (
                f"{unknown / tokens:.0%} of its {split} text is <unk>: perplexity on it says "
                "little about words"
            )
        if np.array_equal(corpus.split(split), corpus.train[:tokens]):
            yield f"its {split} text is also the beginning of its training text"
    if len(corpus.train) < corpus.vocab_size:
        yield (
            f"its training text has fewer tokens ({len(corpus.train):,}) than there are classes "
            f"({corpus.vocab_size:,})"
        )


def summarise_states(
    study: Study,
    hidden: Path | None,
    targets: Path | None,
    vocab_sizes: Sequence[int | str] | None,
) -> tuple[Study, TextSummary]:
    """Check given hidden states, and return the study of them and their summary.

    Args:
        study: Its corpora, vocabulary sizes, encoders and hidden size are replaced.
        hidden: File of the hidden states.
        targets: File of their classes.
        vocab_sizes: The number of classes, if it is not the largest id plus one.

    Raises:
        SoftmaxBenchError: An array is missing or invalid, or the study has settings that do not
            apply to given states.
    """
    if hidden is None or targets is None:
        raise SoftmaxBenchError(
            "--hidden and --targets go together: give the states and their classes"
        )
    if study.tied:
        raise SoftmaxBenchError("given hidden states have no embedding to tie: remove 'tied'")
    if vocab_sizes is not None and (len(vocab_sizes) > 1 or isinstance(vocab_sizes[0], str)):
        raise SoftmaxBenchError("given hidden states have a single number of classes: give one")
    source = Text(
        spec=str(hidden.absolute()),
        targets=str(targets.absolute()),
        vocab_size=None if vocab_sizes is None else int(vocab_sizes[0]),
        seed=0,
    )
    states = _map_states(source, check=True)
    summary = TextSummary(
        source=source,
        name=states.name,
        sha256=states.sha256,
        vocab_size=states.vocab_size,
        train_tokens=len(states.split("train")),
        valid_tokens=len(states.split("valid")),
        test_tokens=len(states.split("test")),
        unknown_share=0.0,
    )
    changed = msgspec.structs.replace(
        study,
        corpora=(states.name,),
        encoders=(GIVEN,),
        hidden_size=states.hidden.shape[1],
        embedding_size=None,
    )
    return changed, summary


def load_given(source: Text, sha256: str) -> States:
    """Map the hidden states of a trial into memory.

    Raises:
        SoftmaxBenchError: They have changed since the trial was planned.
    """
    states = _map_states(source, check=False)
    if states.sha256 != sha256:
        raise SoftmaxBenchError(
            f"{source.spec} is not what it was when the study began: leave arrays as they are "
            "while a study runs, or give the command again to study the new one"
        )
    return states


def _map_states(source: Text, *, check: bool) -> States:
    return load_states(
        Path(source.spec), Path(source.targets or ""), source.vocab_size, check=check
    )


def load_text(source: Text, sha256: str) -> Corpus:
    """Load the text of a trial.

    Raises:
        SoftmaxBenchError: It has changed since the trial was planned.
    """
    corpus = _load(source)
    if corpus.sha256 != sha256:
        raise SoftmaxBenchError(
            f"the text {source.spec} is not what it was when the study began: leave texts as they "
            "are while a study runs, or give the command again to study the new one"
        )
    return corpus


def _load(source: Text) -> Corpus:
    return load_corpus(
        source.spec,
        vocab_size=source.vocab_size,
        seed=source.seed,
        data_dir=None if source.data_dir is None else Path(source.data_dir),
    )
