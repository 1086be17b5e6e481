"""Texts in subwords: nothing is unknown, nothing is lost, and bits per byte compare with words'."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from softmax_bench.corpora import Corpus, load_corpus
from softmax_bench.errors import SoftmaxBenchError

pytest.importorskip("tokenizers")

TRAIN = "the cat sat on the mat\nthe other cats sat there\n\nzwölf Katzen\n" * 20
TEST = "a cat that nobody has seen: 猫\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    for split, text in (("train", TRAIN), ("valid", "the mat\n"), ("test", TEST)):
        (tmp_path / "text" / f"{split}.txt").write_text(text, encoding="utf-8")
    return tmp_path / "text"


def load(folder: Path, size: int = 280) -> Corpus:
    return load_corpus(f"{folder}:bpe", vocab_size=size, cache_dir=folder.parent / "cache")


def spelled(corpus: Corpus, split: str) -> str:
    """The text that token ids stand for, by the byte alphabet that GPT-2 made known."""
    assert corpus.vocabulary is not None
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    byte = {chr(code): code for code in printable}
    rest = [code for code in range(256) if code not in printable]
    byte |= {chr(256 + place): code for place, code in enumerate(rest)}
    data = b""
    for number in corpus.split(split):
        word = corpus.vocabulary.words[number]
        data += b"\n" if word == "<eos>" else bytes(byte[character] for character in word)
    return data.decode()


def test_subwords_spell_the_text_they_were_made_from(folder: Path) -> None:
    corpus = load(folder)
    assert corpus.name == "text:bpe"
    assert corpus.vocab_size == 280
    assert corpus.unknown_id is None
    for split, text in (("train", TRAIN), ("test", TEST)):
        lines = [[f" {word}" for word in line.split()] for line in text.splitlines()]
        assert spelled(corpus, split) == "".join("".join(line) + "\n" for line in lines)


def test_ids_fall_in_frequency_and_more_subwords_make_fewer_tokens(folder: Path) -> None:
    few, many = load(folder, 265), load(folder, 288)
    assert bool((np.diff(few.class_counts) <= 0).all())
    assert len(many.train) < len(few.train)
    assert many.sha256 != few.sha256
    assert load(folder, 288).sha256 == many.sha256


def test_bits_per_byte_are_of_the_same_bytes_for_words_and_subwords(folder: Path) -> None:
    words = load_corpus(str(folder), cache_dir=folder.parent / "cache")
    subwords = load(folder)
    size = sum(len(word.encode()) + 1 for word in TEST.split())
    for corpus in (words, subwords):
        assert corpus.sizes is not None
        assert corpus.sizes["test"] == size
    # A model that gives every token the same probability needs log2 V bits for each.
    uniform = subwords.bits_per_byte(math.log(280), "test")
    assert uniform == pytest.approx(len(subwords.test) * math.log2(280) / size)
    assert words.unknown_tokens("test") > 0
    charged = words.bits_per_byte(0.0, "test")
    assert charged is not None
    assert charged > 0


def test_unknown_words_that_the_text_has_itself_stay_one_token(folder: Path) -> None:
    (folder / "train.txt").write_text("the <unk> sat on the <unk>\n" * 9, encoding="utf-8")
    corpus = load(folder, 260)
    assert corpus.unknown_id is not None
    assert corpus.class_counts[corpus.unknown_id] == 18


@pytest.mark.parametrize(
    ("size", "message"),
    [(100, "does not hold the 256 bytes and <eos>: use 257 or more"), (5000, "yields only")],
)
def test_a_size_that_does_not_suit_the_text_is_refused(
    folder: Path, size: int, message: str
) -> None:
    with pytest.raises(SoftmaxBenchError, match=message):
        load(folder, size)


def test_what_has_no_spelling_or_size_is_refused(folder: Path) -> None:
    with pytest.raises(SoftmaxBenchError, match="no spelling"):
        load_corpus("synthetic:bpe", vocab_size=280)
    with pytest.raises(SoftmaxBenchError, match="needs a vocabulary size"):
        load_corpus(f"{folder}:bpe", cache_dir=folder.parent / "cache")
