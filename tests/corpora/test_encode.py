"""Texts of any bytes, in pieces of any size, against a plain reference; and what is stored."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmax_bench.corpora import Corpus, load_corpus
from softmax_bench.corpora.text import content_hash, find_files, pieces
from softmax_bench.corpora.tokens import read_tokens
from softmax_bench.corpora.whole_folder import whole_folder
from softmax_bench.errors import SoftmaxBenchError

SPLITS = ("train", "valid", "test")

characters = st.sampled_from([*"abé語😀 \n\t\r\0", "\r\n", "\x1c", "\x85", "\xa0", "　", "<eos>"])
texts = st.lists(characters | st.text(max_size=3), max_size=60).map("".join)


def reference_tokens(text: str) -> list[str]:
    """Words and ``<eos>`` of a text, all at once."""
    text = text.replace("\r\n", "\n")
    if text and not text.endswith("\n"):
        text += "\n"
    return text.replace("\n", " <eos> ").split()


def tokens_of(path: Path, size: int) -> list[str]:
    return [
        token for piece in pieces(path, size) for token in piece.replace("\n", " <eos> ").split()
    ]


@given(text=texts, size=st.integers(1, 40))
def test_pieces_of_any_size_have_the_same_words(
    tmp_path_factory: pytest.TempPathFactory, text: str, size: int
) -> None:
    path = tmp_path_factory.mktemp("t") / "x.txt"
    path.write_bytes(b"first" + text.encode())  # so that no zero byte makes it binary
    if "\0" in text:
        with pytest.raises(SoftmaxBenchError, match="is not text"):
            tokens_of(path, 2**20)
        path.write_bytes(b"word " * 2000 + b"first" + text.encode())
        text = "word " * 2000 + "first" + text
    else:
        text = "first" + text
    assert tokens_of(path, size) == reference_tokens(text)


@given(content=st.binary(max_size=30), size=st.integers(1, 40))
def test_bytes_that_are_no_text_are_told_with_their_place(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, size: int
) -> None:
    path = tmp_path_factory.mktemp("t") / "x.txt"
    before = b"word " * 2000
    path.write_bytes(before + content)
    try:
        text = (before + content).decode()
    except UnicodeDecodeError as error:
        with pytest.raises(SoftmaxBenchError, match=f"not UTF-8: byte {error.start} is 0x"):
            tokens_of(path, size)
    else:
        assert tokens_of(path, size) == reference_tokens(text)


@given(train=texts, valid=texts, size=st.integers(1, 20) | st.none())
def test_ids_and_counts_are_those_of_a_plain_count(
    tmp_path_factory: pytest.TempPathFactory, train: str, valid: str, size: int | None
) -> None:
    folder = tmp_path_factory.mktemp("t")
    written = {"train": "a " * 5000 + train, "valid": "a " * 5000 + valid, "test": "a\n"}
    for split, text in written.items():
        (folder / f"{split}.txt").write_bytes(text.encode())
    wanted = {split: reference_tokens(text) for split, text in written.items()}
    counts = Counter(wanted["train"])
    everything = {token for tokens in wanted.values() for token in tokens}
    try:
        corpus = load_corpus(str(folder), vocab_size=size)
    except SoftmaxBenchError:
        extra = "<unk>" not in counts and bool(everything - set(counts))
        assert size is not None
        assert size < 2 or size > len(counts) + extra
        return
    assert corpus.vocabulary is not None
    words = corpus.vocabulary.words
    known = set(words)
    for split in SPLITS:
        found = [words[i] for i in corpus.split(split)]
        assert found == [token if token in known else "<unk>" for token in wanted[split]]
        assert corpus.unknown_tokens(split) == found.count("<unk>")
    again = Counter(words[i] for i in corpus.train)
    assert corpus.class_counts.tolist() == [again[word] for word in words]


def written(folder: Path, **splits: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for split in SPLITS:
        (folder / f"{split}.txt").write_bytes(splits.get(split, b"a b\nc\n"))
    return folder


def same(one: Corpus, other: Corpus) -> bool:
    return one.sha256 == other.sha256 and all(
        np.array_equal(one.split(split), other.split(split)) for split in SPLITS
    )


def test_stored_ids_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(tmp_path / "text", train=b"a b b\nc\n" * 50)
    first = load_corpus(str(text), vocab_size=3, cache_dir=tmp_path / "cache")
    monkeypatch.setattr("softmax_bench.corpora.encode.pieces", None)
    moved = text.rename(tmp_path / "moved")
    again = load_corpus(str(moved), vocab_size=3, cache_dir=tmp_path / "cache")
    assert same(first, again)
    # The text was counted once: another vocabulary needs no second look at it.
    other = load_corpus(str(moved), vocab_size=4, cache_dir=tmp_path / "cache")
    assert other.vocab_size == 4
    assert not again.train.flags.writeable


def test_another_content_is_another_text(tmp_path: Path) -> None:
    text = written(tmp_path / "text")
    first = load_corpus(str(text), cache_dir=tmp_path / "cache")
    written(text, valid=b"a c\nc\n")  # of equal length
    assert load_corpus(str(text), cache_dir=tmp_path / "cache").sha256 != first.sha256


@pytest.mark.parametrize("file", ["tokens.i4", "types.txt", "description.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "longer", "empty", "gone"])
def test_a_damaged_store_is_noticed_and_made_anew(
    tmp_path: Path, file: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = written(tmp_path / "text", train=b"a b b\nc d e\n" * 20)
    cache = tmp_path / "cache"
    whole = load_corpus(str(text), vocab_size=3, cache_dir=cache)
    for path in cache.rglob(file):  # of the first count and of the ids
        content = bytearray(path.read_bytes())
        path.unlink()
        if harm == "flip":
            content[len(content) // 2] ^= 1
        elif harm == "cut":
            del content[-1:]
        elif harm == "longer":
            content += b"1234"
        elif harm == "empty":
            content.clear()
        if harm != "gone":
            path.write_bytes(content)
    again = load_corpus(str(text), vocab_size=3, cache_dir=cache)
    assert same(whole, again)
    assert caplog.text.count("is damaged and is created again") == 2
    caplog.clear()
    assert same(whole, load_corpus(str(text), vocab_size=3, cache_dir=cache))
    assert not caplog.text


def test_no_bit_of_a_store_may_differ(tmp_path: Path) -> None:
    load_corpus(str(written(tmp_path / "text")), vocab_size=3, cache_dir=tmp_path / "cache")
    (folder,) = (tmp_path / "cache" / "tokens").glob("*-3")
    whole = read_tokens(folder)
    assert whole is not None
    for path in folder.iterdir():
        content = path.read_bytes()
        for place in range(len(content)):
            changed = bytearray(content)
            changed[place] ^= 1
            path.write_bytes(changed)
            assert read_tokens(folder) is None, (path.name, place)
        path.write_bytes(content)
    assert read_tokens(folder) is not None


def test_nothing_is_left_where_a_text_cannot_be_read(tmp_path: Path) -> None:
    text = written(tmp_path / "text", test=b"a \xff\n")
    with pytest.raises(SoftmaxBenchError, match=r"test\.txt is not UTF-8: byte 2"):
        load_corpus(str(text), cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache" / "tokens").iterdir())
    written(text)
    with pytest.raises(SoftmaxBenchError, match="use 4 or less"):
        load_corpus(str(text), vocab_size=5, cache_dir=tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "tokens").iterdir()
    assert kept.name.endswith("-types")


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(SoftmaxBenchError, match=r"cannot write .*SOFTMAX_BENCH_CACHE"):
        load_corpus(str(written(tmp_path / "text")), cache_dir=tmp_path / "cache")


def test_of_two_that_make_the_same_the_first_stays(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with whole_folder(folder) as slow:
        (slow / "x").write_text("slow")
        assert not folder.exists()
        with whole_folder(folder) as fast:
            (fast / "x").write_text("fast")
    assert (folder / "x").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [folder]


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with whole_folder(tmp_path / "kept") as made:
            (made / "x").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_folders_of_shards(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", train=b"a b\nc\nd e\nf\n")
    for split in SPLITS:
        lines = (whole / f"{split}.txt").read_bytes().splitlines(keepends=True)
        (tmp_path / "shards" / split).mkdir(parents=True)
        for number, line in enumerate(lines):
            (tmp_path / "shards" / split / f"part-{number:03}").write_bytes(line)
        (tmp_path / "shards" / split / ".hidden").write_bytes(b"x\n")
    assert same(load_corpus(str(whole)), load_corpus(str(tmp_path / "shards")))


def test_one_billion_word_as_it_is_distributed(tmp_path: Path) -> None:
    training = tmp_path / "training-monolingual.tokenized.shuffled"
    heldout = tmp_path / "heldout-monolingual.tokenized.shuffled"
    training.mkdir()
    heldout.mkdir()
    for number in (2, 1, 10):
        (training / f"news.en-{number:05}-of-00100").write_text(f"train {number}\n")
    for number in range(3):
        (heldout / f"news.en.heldout-{number:05}-of-00050").write_text(f"heldout {number}\n")
    corpus = load_corpus(str(tmp_path))
    assert corpus.vocabulary is not None
    read = {split: [corpus.vocabulary.words[i] for i in corpus.split(split)] for split in SPLITS}
    assert read["train"] == ["train", "1", "<eos>", "train", "2", "<eos>", "train", "10", "<eos>"]
    # Words of other splits are unknown.
    assert [len(read["valid"]), len(read["test"])] == [3, 3]
    files = find_files(tmp_path)
    assert [path.name[:21] for path in files["valid"]] == ["news.en.heldout-00001"]
    assert [path.name[:21] for path in files["test"]] == ["news.en.heldout-00000"]


@pytest.mark.parametrize("ending", ["", "\n", "\none more line"])
def test_a_text_of_one_line_is_cut_between_words(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "text8"
    path.write_text(" " + " ".join(f"w{i % 50}" for i in range(1000)) + ending)
    corpus = load_corpus(str(path))
    total = len(reference_tokens(path.read_text()))
    held_out = total // 20
    assert len(corpus.valid) == len(corpus.test) == held_out
    assert len(corpus.train) == total - 2 * held_out


def test_too_few_words_to_cut(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_text("a")
    with pytest.raises(SoftmaxBenchError, match="has 2 tokens: at least 3 are needed"):
        load_corpus(str(path))


def test_names_do_not_change_what_a_text_is(tmp_path: Path) -> None:
    one = written(tmp_path / "one")
    other = written(tmp_path / "other")
    (other / "train.txt").rename(other / "ptb.train.txt")
    assert content_hash(find_files(one)) == content_hash(find_files(other))
    (one / "train.txt").rename(one / "train.tokens")
    assert content_hash(find_files(one)) == content_hash(find_files(other))


_STREAM_IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from softmax_bench.corpora import load_corpus
from softmax_bench.lm import make_streams

load_corpus(sys.argv[1], vocab_size=50)  # everything is imported, and has been used, now
used = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
limit = int(used.split()[1]) * 1024 + 16 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    held = bytearray(Path(sys.argv[2]).stat().st_size)
except MemoryError:
    pass
else:
    raise SystemExit("the whole text fits into the memory that is allowed")
corpus = load_corpus(sys.argv[2], vocab_size=50)
seen = 0
for inputs, targets in make_streams(corpus.train, 20, corpus.eos_id).windows(35):
    seen += int((targets >= 0).sum())
assert seen == len(corpus.train)
print(len(corpus.train) + len(corpus.valid) + len(corpus.test), corpus.class_counts.sum())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("lines", [True, False])
def test_a_text_larger_than_memory_is_counted_and_streamed(tmp_path: Path, lines: bool) -> None:
    words = [f"somelongword{i:02}" for i in range(97)]
    (tmp_path / "small").write_text("\n".join(words))
    line = " ".join(words) + (" \n" if lines else " ")
    repeated = 40 * 2**20 // len(line)
    (tmp_path / "large").write_text(line * repeated)
    done = subprocess.run(
        [sys.executable, "-c", _STREAM_IN_LITTLE_MEMORY, tmp_path / "small", tmp_path / "large"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    total = repeated * (97 + lines) + (not lines)
    found, train = map(int, done.stdout.split())
    assert found == total
    assert train == pytest.approx(0.9 * total, abs=200)
