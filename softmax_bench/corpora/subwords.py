"""Byte-pair encoding of a text, learned from its training text (Sennrich et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from softmax_bench.corpora.progress import byte_progress
from softmax_bench.corpora.text import SPLITS
from softmax_bench.corpora.tokens import (
    Ids,
    Tokens,
    append_tokens,
    count,
    describe,
    stretches,
    tokens_file,
)
from softmax_bench.corpora.vocabulary import END_OF_LINE, UNKNOWN
from softmax_bench.errors import SoftmaxBenchError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SUFFIX = ":bpe"
"""Suffix of a corpus specification: ``"ptb:bpe"`` is Penn Treebank in subwords."""


def split_suffix(spec: str) -> tuple[str, bool]:
    """Split a specification into the text and whether subwords are wanted."""
    if spec.endswith(SUFFIX) and not Path(spec).exists():
        return spec.removesuffix(SUFFIX), True
    return spec, False


def encode_subwords(words: Tokens, vocab_size: int, folder: Path) -> None:
    """Write the ids of a vocabulary of ``vocab_size`` subwords learned from the training text.

    Subwords are runs of bytes inside a word, so no text has an unknown one. ``<eos>`` ends every
    line as in a text of words, and the text's own word ``<unk>``, if any, stays one token. Ids are
    in descending order of frequency in the training text.

    Args:
        words: The text as word numbers.
        vocab_size: V, including the 256 bytes and the marks above.
        folder: Where to write.

    Raises:
        SoftmaxBenchError: ``vocab_size`` is too small for every byte, or more than the training
            text yields; or the package tokenizers is not installed.
    """
    marks = [END_OF_LINE, *([UNKNOWN] if UNKNOWN in words.types else [])]
    tokenizer = _learn(words, vocab_size, marks)
    spelled = [encoding.ids for encoding in tokenizer.encode_batch(list(words.types))]
    lengths = np.fromiter(map(len, spelled), np.int64, len(spelled))
    pieces = np.fromiter((piece for word in spelled for piece in word), np.int32, lengths.sum())
    starts = np.cumsum(lengths) - lengths

    word_counts = count(words.splits["train"], len(words.types))
    frequency = np.bincount(pieces, np.repeat(word_counts, lengths), minlength=vocab_size)
    order = np.argsort(-frequency, kind="stable")
    pieces = np.argsort(order).astype(np.int32)[pieces]

    ends, total = [], 0
    size = 4 * sum(map(len, words.splits.values()))
    with (
        tokens_file(folder).open("wb") as out,
        byte_progress("writing subword ids", size) as on_bytes,
    ):
        for split in SPLITS:
            for part in stretches(words.splits[split]):
                ids = _spell(part, pieces, starts, lengths)
                append_tokens(out, ids)
                total += len(ids)
                on_bytes(part.nbytes)
            ends.append(total)
    spelling = {number: subword for subword, number in tokenizer.get_vocab().items()}
    describe(folder, [spelling[number] for number in order.tolist()], ends, words.sizes)


def _learn(words: Tokens, vocab_size: int, marks: list[str]) -> Tokenizer:
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    except ImportError as error:
        raise SoftmaxBenchError(
            "subwords need the package tokenizers: pip install softmax-bench[subwords]"
        ) from error
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    least = len(alphabet) + len(marks)
    if vocab_size < least:
        raise SoftmaxBenchError(
            f"a vocabulary of {vocab_size:,} subwords does not hold the {len(alphabet)} bytes and "
            f"{', '.join(marks)}: use {least} or more"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=marks, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_training_text(words), trainer)
    offered = tokenizer.get_vocab_size()
    if offered < vocab_size:
        raise SoftmaxBenchError(
            f"the training text yields only {offered:,} subwords, too few for a vocabulary of "
            f"{vocab_size:,}: use {offered} or less"
        )
    return tokenizer


def _training_text(words: Tokens) -> Iterator[str]:
    types = words.types
    for part in stretches(words.splits["train"]):
        yield " ".join([types[number] for number in part.tolist()])


def _spell(
    part: Ids, pieces: Ids, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> Ids:
    """The pieces of each word of ``part``, one word after the other."""
    of_word = lengths[part]
    begins = np.cumsum(of_word) - of_word
    place = np.repeat(starts[part] - begins, of_word) + np.arange(of_word.sum())
    return pieces[place]
