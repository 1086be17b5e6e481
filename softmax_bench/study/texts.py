"""The texts of a study: known by what is in them, loaded where they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from softmax_bench.corpora import Corpus, load_corpus
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.study.job import Text


@dataclass(frozen=True)
class KnownText:
    """What planning needs to know of a text; the text itself is not kept."""

    source: Text
    name: str
    sha256: str
    vocab_size: int
    train_tokens: int
    valid_tokens: int
    test_tokens: int
    unknown_share: float
    """Of the test text."""


def know_text(source: Text) -> KnownText:
    """Load a text and keep what planning needs.

    Raises:
        SoftmaxBenchError: There is no such text, or it does not offer such a vocabulary.
    """
    corpus = _load(source)
    return KnownText(
        source=source,
        name=corpus.name,
        sha256=corpus.sha256,
        vocab_size=corpus.vocab_size,
        train_tokens=len(corpus.train),
        valid_tokens=len(corpus.valid),
        test_tokens=len(corpus.test),
        unknown_share=corpus.unknown_tokens("test") / len(corpus.test),
    )


def load_text(source: Text, sha256: str) -> Corpus:
    """Load the text that a trial names.

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
