from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmax_bench.corpora import Corpus, load_corpus
from softmax_bench.corpora.text import find_files
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.records.frames import load_results


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("train.txt"), content)  # which has no time
    return file.getvalue()


def folder_of(path: Path, **splits: str) -> Path:
    for split, text in splits.items():
        (path / f"{split}.txt").write_text(text, encoding="utf-8")
    return path


def words(corpus: Corpus, split: str) -> list[str]:
    assert corpus.vocabulary is not None
    return [corpus.vocabulary.words[i] for i in corpus.split(split)]


def test_most_frequent_types_are_kept_and_lines_end(tmp_path: Path) -> None:
    folder_of(tmp_path, train="b a b\nc b\n\na d\n", valid="a x\n", test="b")
    corpus = load_corpus(str(tmp_path), vocab_size=4)
    assert words(corpus, "train") == [
        "b",
        "a",
        "b",
        "<eos>",
        "<unk>",
        "b",
        "<eos>",
        "<eos>",
        "a",
        "<unk>",
        "<eos>",
    ]
    assert words(corpus, "valid") == ["a", "<unk>", "<eos>"]
    assert words(corpus, "test") == ["b", "<eos>"]
    assert corpus.class_counts.tolist() == [4, 3, 2, 2]
    assert corpus.unknown_tokens("train") == 2


line = st.lists(st.sampled_from(["a", "bb", "ccc", "é", "d", "e", "f"]), max_size=6).map(" ".join)
text = st.lists(line, min_size=1, max_size=20).map("\n".join).map(lambda t: t + "\nq\n")


@given(train=text, valid=text, size=st.integers(2, 9))
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, train: str, valid: str, size: int
) -> None:
    folder = folder_of(tmp_path_factory.mktemp("t"), train=train, valid=valid, test="q\n")
    tokens = train.replace("\n", " <eos> ").split()
    types = set(tokens)
    try:
        corpus = load_corpus(str(folder), vocab_size=size)
    except SoftmaxBenchError:
        needs_unknown = not set(valid.split()) <= types
        assert size > len(types) + needs_unknown
        return
    assert corpus.vocabulary is not None
    known = set(corpus.vocabulary.words)
    assert corpus.vocab_size == len(known) == size
    assert corpus.vocabulary.words[corpus.eos_id] == "<eos>"
    assert words(corpus, "train") == [t if t in known else "<unk>" for t in tokens]
    assert (np.diff(corpus.class_counts) <= 0).all()
    counts = Counter(tokens)
    left_out = [counts[t] for t in types - known]
    kept = [counts[t] for t in known - {"<unk>", "<eos>"}]
    assert not left_out or max(left_out) <= min(kept, default=max(left_out))


def test_a_rare_end_of_line_is_kept(tmp_path: Path) -> None:
    folder_of(tmp_path, train="a a a b b b c c\n", valid="a\n", test="b\n")
    corpus = load_corpus(str(tmp_path), vocab_size=3)
    assert corpus.vocabulary is not None
    assert corpus.vocabulary.words == ("<unk>", "a", "<eos>")
    assert corpus.class_counts.tolist() == [5, 3, 1]
    smallest = load_corpus(str(tmp_path), vocab_size=2)
    assert words(smallest, "test") == ["<unk>", "<eos>"]


def test_of_equally_frequent_types_the_first_is_kept(tmp_path: Path) -> None:
    # Every second type twice: 500 of them, and 500 that are equal among themselves.
    types = [f"w{i * 37 % 1000}" for i in range(1000)]
    folder_of(tmp_path, train=" ".join(types + types[::2]) + "\n", valid="w0\n", test="w0\n")
    corpus = load_corpus(str(tmp_path), vocab_size=602)
    assert corpus.vocabulary is not None
    kept = {*types[::2], *types[1:200:2], "<unk>", "<eos>"}
    assert set(corpus.vocabulary.words) == kept
    assert [w for w in corpus.vocabulary.words if w in types[::2]] == types[::2]


def test_unknown_only_where_it_is_needed(tmp_path: Path) -> None:
    folder_of(tmp_path, train="a b\n", valid="a\n", test="b\n")
    assert load_corpus(str(tmp_path)).unknown_id is None
    (tmp_path / "test.txt").write_text("x\n")
    corpus = load_corpus(str(tmp_path))
    assert corpus.unknown_id is not None
    assert corpus.vocab_size == 4
    assert corpus.class_counts[corpus.unknown_id] == 0


def test_one_file_is_cut_at_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("".join(f"w{i} x\n" for i in range(100)))
    corpus = load_corpus(str(path))
    assert corpus.name == "book.txt"
    assert [len(corpus.split(s)) for s in ("train", "valid", "test")] == [270, 15, 15]


def test_gzip_and_prefixes(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / f"ptb.{split}.txt").write_text("a b\n")
    (tmp_path / "test.txt.gz").write_bytes(gzip.compress(b"a\n"))
    assert words(load_corpus(str(tmp_path)), "test") == ["a", "<eos>"]


def test_names_of_wikitext(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / f"wiki.{split}.tokens").write_text(f"{split} x\n")
    assert words(load_corpus(str(tmp_path)), "train") == ["train", "x", "<eos>"]


def test_hash_tells_texts_apart(tmp_path: Path) -> None:
    folder_of(tmp_path, train="a b c\n", valid="a\n", test="a\n")
    first = load_corpus(str(tmp_path)).sha256
    assert load_corpus(str(tmp_path)).sha256 == first
    (tmp_path / "test.txt").write_text("b\n")
    assert load_corpus(str(tmp_path)).sha256 != first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty"),
        (b"\n \n\n", r"is empty"),
        (b"some words\0 and more\n", r"not text: byte 10 is zero; remove such bytes"),
        ("a b\n".encode("utf-16-le"), r"byte 1 is zero; .*iconv -f utf-16le"),
        ("a b\n".encode("utf-16-be"), r"byte 0 is zero; .*iconv -f utf-16be"),
        ("a caf\u00e9\n".encode("latin-1"), r"not UTF-8: byte 5 is 0xe9; .*iconv -f latin1"),
        (bytes(range(256)), r"byte 0 is zero; it looks like binary data"),
        (bytes(range(1, 256)), r"not UTF-8: .*it looks like binary data"),
        (zipped(b"a b\n"), r"zip archive.*unpack it"),
        (b"\x28\xb5\x2f\xfd\x20\x04", r"packed with zstd: unpack it with 'zstd -d'"),
        (b"\0" * 257 + b"ustar" + b"\0" * 250, r"is a tar archive: unpack it"),
        (b"%PDF-1.7\n%\xe2", r"PDF document: extract its text"),
        (gzip.compress(b"a\0b" * 9, mtime=0), r"not text: byte 1 is zero"),
        (
            gzip.compress(b"some words here\n" * 1000, mtime=0)[:-20],
            r"damaged and cannot be unpacked",
        ),
        (bz2.compress(b"some words here\n" * 1000)[:-20], r"damaged and cannot be unpacked"),
        (codecs.BOM_UTF16_LE + b"a\0b", r"mark of another encoding"),
    ],
)
def test_bad_text(tmp_path: Path, content: bytes, message: str) -> None:
    folder_of(tmp_path, valid="a\n", test="a\n")
    (tmp_path / "train.txt").write_bytes(content)
    with pytest.raises(SoftmaxBenchError, match=message):
        load_corpus(str(tmp_path))


def test_offset_of_a_bad_byte_far_into_a_file(tmp_path: Path) -> None:
    folder_of(tmp_path, valid="a\n", test="a\n")
    content = b"abc\n" * 2_000_000 + b"\xff\n"
    (tmp_path / "train.txt").write_bytes(content)
    with pytest.raises(SoftmaxBenchError, match="byte 8000000 is 0xff"):
        load_corpus(str(tmp_path))


def test_a_stray_zero_byte_far_into_a_text_is_a_character(tmp_path: Path) -> None:
    folder_of(tmp_path, train="a b\n" * 3000 + "a\0 b\n", valid="a\n", test="a\n")
    assert words(load_corpus(str(tmp_path)), "train")[-3:] == ["a\0", "b", "<eos>"]


WORDS = "\u00e4 b\u20ac c\n" * 3000


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_what_can_be_read_is_read(
    tmp_path: Path, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    """Whatever the name says: a byte order mark is no part of the first word."""
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_bytes(pack(WORDS.encode(encoding)))
    corpus = load_corpus(str(tmp_path))
    assert corpus.vocab_size == 4
    assert words(corpus, "train") == WORDS.replace("\n", " <eos> ").split()


@pytest.mark.parametrize("name", ["train.txt.gz", "train.txt.bz2", "train.txt.xz"])
def test_a_name_does_not_make_a_text_packed(tmp_path: Path, name: str) -> None:
    folder_of(tmp_path, valid="a\n", test="a\n")
    (tmp_path / name).write_text("a b\n")
    assert words(load_corpus(str(tmp_path)), "train") == ["a", "b", "<eos>"]


def test_a_pipe_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SoftmaxBenchError, match=r"is a pipe: .*write it to a file first"):
        load_corpus(str(tmp_path / "pipe"))
    with pytest.raises(SoftmaxBenchError, match=r"is a device"):
        load_corpus("/dev/null")


@pytest.mark.parametrize(
    ("number", "held_out"), [(3, 1), (19, 1), (20, 1), (45, 2), (100, 5), (101, 5)]
)
def test_texts_without_splits_are_split_by_file(tmp_path: Path, number: int, held_out: int) -> None:
    for place in range(number):
        (tmp_path / f"novel{place:03}.txt").write_text(f"n{place} x\n")
    (tmp_path / "notes.doc").write_bytes(b"\0")
    (tmp_path / ".hidden.txt").write_bytes(b"\0")
    corpus = load_corpus(str(tmp_path))
    train, valid, test = (
        [word for word in words_of(tmp_path, split) if word.startswith("n")]
        for split in ("train", "valid", "test")
    )
    assert len(valid) == len(test) == held_out
    assert {*train, *valid, *test} == {f"n{place}" for place in range(number)}
    assert corpus.how_split == (
        f"its texts are split by file: {number - 2 * held_out} train, {held_out} valid, "
        f"{held_out} test"
    )


def words_of(folder: Path, split: str) -> list[str]:
    return [word for path in find_files(folder)[split] for word in path.read_text().split()]


def test_one_or_two_texts_in_a_folder_are_cut(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("w x\n" * 50)
        corpus = load_corpus(str(tmp_path))
        assert corpus.how_split.startswith("cut into 90 % train")
    assert [len(corpus.split(s)) for s in ("train", "valid", "test")] == [270, 15, 15]


def test_what_came_with_splits_is_not_said_to_be_split(tmp_path: Path) -> None:
    folder_of(tmp_path, train="a b\n", valid="a\n", test="b\n")
    assert load_corpus(str(tmp_path)).how_split == ""


@pytest.mark.parametrize("link", ["symbolic", "hard", "folder"])
def test_a_split_must_not_be_part_of_another(tmp_path: Path, link: str) -> None:
    folder_of(tmp_path, valid="a\n", test="b\n")
    if link == "folder":
        (tmp_path / "train").symlink_to(".")
    elif link == "symbolic":
        (tmp_path / "train.txt").symlink_to("test.txt")
    else:
        (tmp_path / "train.txt").hardlink_to(tmp_path / "test.txt")
    with pytest.raises(SoftmaxBenchError, match=r"are the same file, in .* and in train"):
        load_corpus(str(tmp_path))


def test_missing_things(tmp_path: Path) -> None:
    with pytest.raises(SoftmaxBenchError, match=r"no text at .*nowhere"):
        load_corpus(str(tmp_path / "nowhere"))
    folder_of(tmp_path, train="a\n", test="a\n")
    with pytest.raises(SoftmaxBenchError, match=r"no valid text: looked for valid\.txt, .*tokens"):
        load_corpus(str(tmp_path))


def test_vocabulary_that_is_not_there(tmp_path: Path) -> None:
    folder_of(tmp_path, train="a b\n", valid="a\n", test="a\n")
    with pytest.raises(SoftmaxBenchError, match=r"has only 3 types, .* use 3 or less"):
        load_corpus(str(tmp_path), vocab_size=4)
    with pytest.raises(SoftmaxBenchError, match="at least 2"):
        load_corpus(str(tmp_path), vocab_size=1)


@pytest.mark.parametrize(
    ("name", "size", "tokens"),
    [
        ("ptb", 10_000, (929_589, 73_760, 82_430)),
        ("wikitext-2", 33_278, (2_088_628, 217_646, 245_569)),
    ],
)
def test_published_token_counts(
    corpora_folder: Path, name: str, size: int, tokens: tuple[int, int, int]
) -> None:
    corpus = load_corpus(str(corpora_folder / name))
    assert corpus.vocab_size == size
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == tokens


def test_records_in_this_repository_are_of_this_text(corpora_folder: Path) -> None:
    corpus = load_corpus(str(corpora_folder / "ptb"), vocab_size=10_000)
    results = Path(__file__).parents[2] / "results" / "claims" / "ptb"
    assert set(load_results(results).train["corpus_sha256"]) == {corpus.sha256}
