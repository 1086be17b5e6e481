"""A text ready for a language model: token ids of three splits, and what is known about them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from softmax_bench.cache import cache_folder
from softmax_bench.corpora.encode import encode
from softmax_bench.corpora.named import find_corpus
from softmax_bench.corpora.subwords import SUFFIX, split_suffix
from softmax_bench.corpora.synthetic import SyntheticLanguage
from softmax_bench.corpora.text import SPLITS, find_files, how_split
from softmax_bench.corpora.tokens import Ids, count, stretches, token_hash
from softmax_bench.corpora.vocabulary import END_OF_LINE, UNKNOWN, Vocabulary
from softmax_bench.errors import SoftmaxBenchError

SYNTHETIC = "synthetic"
_SYNTHETIC_VOCAB_SIZE = 10_000
_SYNTHETIC_TOKENS = 1_000_000
_HELD_OUT_TOKENS = 20_000


@dataclass(frozen=True)
class Corpus:
    """Token ids by split; ids are in descending order of frequency.

    The ids of a text are memory-mapped from a file and read where they are accessed.
    """

    name: str
    vocab_size: int
    sha256: str
    """Hash of all tokens and the vocabulary: equal only for equal prediction tasks."""
    train: Ids
    valid: Ids
    test: Ids
    vocabulary: Vocabulary | None = None
    """None for the synthetic language, whose words have no spelling."""
    unknown_id: int | None = None
    eos_id: int = 0
    """The token before the first token of a split."""
    true_perplexity: dict[str, float] | None = None
    """Perplexity of the source itself on the words of each split, if it is known."""
    how_split: str = ""
    """How the text was split, in words, if it came without splits."""
    sizes: dict[str, int] | None = None
    """Bytes of each split's text; None for the synthetic language."""

    def split(self, name: str) -> Ids:
        """Token ids of ``"train"``, ``"valid"`` or ``"test"``."""
        ids: Ids = getattr(self, name)
        return ids

    def unknown_tokens(self, split: str) -> int:
        """Number of ``<unk>`` tokens in a split."""
        if self.unknown_id is None:
            return 0
        return sum(
            int(np.count_nonzero(part == self.unknown_id)) for part in stretches(self.split(split))
        )

    def adjusted_nats(self, nats: float, split: str) -> float:
        """Mean nats per token if ``<unk>`` must also say which of its types was meant.

        ``<unk>`` alone is easier to predict the more types it stands for, so a small vocabulary is
        easier to model. If every unknown token is charged the logarithm of their number, all
        vocabularies predict the same words (Ueberla 1994).
        """
        types = 0 if self.vocabulary is None else self.vocabulary.unknown_types
        share = self.unknown_tokens(split) / len(self.split(split))
        return nats + share * math.log(max(1, types))

    @property
    def letters_a_word(self) -> float:
        """Mean length of the training text's words that have an id; 0 if there are none."""
        spelled = () if self.vocabulary is None else self.vocabulary.words
        lengths = np.array([0 if word in (UNKNOWN, END_OF_LINE) else len(word) for word in spelled])
        counts = self.class_counts[: len(lengths)] * (lengths > 0)
        return float(lengths @ counts / max(1, counts.sum()))

    def bits_per_byte(self, nats: float, split: str) -> float | None:
        """Bits per byte of a split's text, from mean nats per token; None without a text.

        This is comparable between words and any number of subwords. ``<unk>`` is charged as in
        :meth:`adjusted_nats`.
        """
        if self.sizes is None:
            return None
        total = self.adjusted_nats(nats, split) * len(self.split(split))
        return total / self.sizes[split] / math.log(2)

    @cached_property
    def class_counts(self) -> npt.NDArray[np.int64]:
        """(V,) how often each type occurs in the training text."""
        return count(self.train, self.vocab_size)


def load_corpus(
    spec: str,
    *,
    vocab_size: int | None = None,
    seed: int = 0,
    tokens: int | None = None,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
) -> Corpus:
    """Load a text, or generate the synthetic language.

    Token ids are stored, so that a text is read only once for all vocabulary sizes.

    Args:
        spec: ``"synthetic"``; the path of a text file, of a folder with train, valid and test
            files, or of a folder of texts; the name of either in ``data_dir``; or the name of a
            corpus that can be downloaded (:data:`softmax_bench.corpora.named.NAMED`). The first
            match counts. ``":bpe"`` after any but the first encodes the text in ``vocab_size``
            subwords.
        vocab_size: Number of types. By default all types of the training text; 10,000 for the
            synthetic language.
        seed: Seed of the synthetic language.
        tokens: Training tokens of the synthetic language, 1,000,000 by default.
        data_dir: Folder of corpora; by default, the environment variable ``SOFTMAX_BENCH_DATA``.
        cache_dir: Folder for what is kept between runs: token ids and downloaded corpora. By
            default, ``SOFTMAX_BENCH_CACHE`` or else the user's cache folder. It can be deleted at
            any time.

    Raises:
        SoftmaxBenchError: See :func:`softmax_bench.corpora.named.find_corpus`,
            :func:`softmax_bench.corpora.text.find_files`,
            :func:`softmax_bench.corpora.encode.encode`,
            :func:`softmax_bench.corpora.subwords.encode_subwords` and
            :class:`SyntheticLanguage`; or ``tokens`` is less than 1.
    """
    if spec == SYNTHETIC:
        return _synthetic(
            _SYNTHETIC_VOCAB_SIZE if vocab_size is None else vocab_size,
            seed,
            _SYNTHETIC_TOKENS if tokens is None else tokens,
        )
    cache = cache_dir or cache_folder()
    chosen = os.environ.get("SOFTMAX_BENCH_DATA")
    source, subwords = split_suffix(spec)
    if source == SYNTHETIC:
        raise SoftmaxBenchError("words of the synthetic language have no spelling, so no subwords")
    name, path = find_corpus(source, data_dir or (Path(chosen) if chosen else None), cache)
    files = find_files(path)
    text = encode(files, vocab_size, cache / "tokens", subwords=subwords)
    vocabulary = Vocabulary(text.types, text.unknown_types)
    return Corpus(
        name=f"{name}{SUFFIX}" if subwords else name,
        vocab_size=len(vocabulary),
        sha256=text.sha256,
        vocabulary=vocabulary,
        unknown_id=vocabulary.ids.get(UNKNOWN),
        eos_id=vocabulary.ids[END_OF_LINE],
        train=text.splits["train"],
        valid=text.splits["valid"],
        test=text.splits["test"],
        how_split=how_split(path, files),
        sizes=dict(zip(SPLITS, text.sizes, strict=True)),
    )


def _synthetic(vocab_size: int, seed: int, tokens: int) -> Corpus:
    if tokens < 1:
        raise SoftmaxBenchError(f"the training text needs at least one token, not {tokens}")
    language = SyntheticLanguage(vocab_size, seed)
    lengths = {"train": tokens, "valid": _HELD_OUT_TOKENS, "test": _HELD_OUT_TOKENS}
    # Spawned streams are independent of each other and of the one that made the language.
    streams = np.random.SeedSequence(seed).spawn(len(lengths))
    texts = {
        split: language.draw(length, np.random.default_rng(stream))
        for (split, length), stream in zip(lengths.items(), streams, strict=True)
    }
    true = {split: float(np.exp(-language.log_prob(text).mean())) for split, text in texts.items()}
    ids = {split: text.astype(np.int32) for split, text in texts.items()}
    return Corpus(
        name=SYNTHETIC,
        vocab_size=vocab_size,
        sha256=token_hash(vocab_size, ids, None),
        true_perplexity=true,
        train=ids["train"],
        valid=ids["valid"],
        test=ids["test"],
    )
