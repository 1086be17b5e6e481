"""What is said of a text before anything is trained on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from softmax_bench.study.jobs.job import Text
from softmax_bench.study.texts import TextSummary, summarise_text

ENGLISH = "the cat sat on the mat while the old dog slept\n"
OTHER = "the old dog sat on the mat while the cat slept\n" + ENGLISH * 99
VERSE = "\u767d\u65e5\u4f9d\u5c71\u76e1\uff0c\u9ec3\u6cb3\u5165\u6d77\u6d41\u3002"
CHINESE = VERSE * 4 + "\n"


def known(folder: Path, vocab_size: int | None = None, **splits: str) -> TextSummary:
    for split, text in splits.items():
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")
    return summarise_text(Text(spec=str(folder), vocab_size=vocab_size, seed=0))


def test_an_ordinary_text_leaves_no_doubt(tmp_path: Path) -> None:
    text = known(tmp_path, train=ENGLISH * 900, valid=OTHER, test=OTHER)
    assert text.doubts == ()
    assert text.how_split == ""


@pytest.mark.parametrize(
    ("train", "valid", "test", "doubt"),
    [
        ((VERSE + "\n") * 9, (VERSE + "\n") * 999, (VERSE + "\n") * 999, "have 12 letters on"),
        (CHINESE * 9, CHINESE * 999, CHINESE * 999, "have 48 letters on average"),
        (ENGLISH * 900, OTHER, "one more\n" * 4, "test text has only 12 tokens"),
        (ENGLISH * 900, "z y x w\n" * 300, OTHER, "80% of its valid text is <unk>"),
        (
            ENGLISH * 900,
            OTHER,
            ENGLISH * 99,
            "test text is also the beginning of its training text",
        ),
        ("a b c d\n", "a x\n" * 600, "a\n" * 600, "fewer tokens (5) than there are classes (6)"),
    ],
)
def test_a_text_that_can_say_little_is_doubted(
    tmp_path: Path, train: str, valid: str, test: str, doubt: str
) -> None:
    (found,) = known(tmp_path, train=train, valid=valid, test=test).doubts
    assert doubt in found
